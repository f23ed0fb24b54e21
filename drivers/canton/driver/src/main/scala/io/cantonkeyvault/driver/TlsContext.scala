// The TLS context of the driver: TLS 1.3 only, the CAs of the vault, the certificate of the node. The files are read again when they change; a
// file that cannot be read then leaves the former context in use and is reported.
package io.cantonkeyvault.driver

import java.io.{ByteArrayInputStream, IOException}
import java.nio.charset.StandardCharsets.UTF_8
import java.nio.file.{Files, Path}
import java.security.cert.{CertificateFactory, X509Certificate}
import java.security.spec.{InvalidKeySpecException, PKCS8EncodedKeySpec}
import java.security.{GeneralSecurityException, KeyFactory, KeyStore, PrivateKey, SecureRandom, Signature}
import java.time.Instant
import java.util.{Arrays, Base64}
import javax.net.ssl.{KeyManagerFactory, SSLContext, SSLSocketFactory, TrustManagerFactory}
import scala.jdk.CollectionConverters.*

/** A context and what it was made from. */
private[driver] final class LoadedTls(val factory: SSLSocketFactory, val expires: Instant, val generation: Long)

private[driver] final class TlsContext(files: TlsFiles, nanoTime: () => Long) {
  import TlsContext.*

  private val lock = new Object
  private var stamp: Seq[FileStamp] = stampOf(files)
  private var loaded: LoadedTls = load(files, generation = 1)
  private var checkedAt: Long = nanoTime()
  private var problem: Option[String] = None

  /** The context in force. The files are looked at every second at most. */
  def current: LoadedTls = lock.synchronized {
    if (nanoTime() - checkedAt >= CheckInterval) {
      checkedAt = nanoTime()
      reloadIfChanged()
    }
    loaded
  }

  /** Why the newest files are not in use. */
  def reloadProblem: Option[String] = lock.synchronized(problem)

  private def reloadIfChanged(): Unit = {
    val now = stampOf(files)
    if (now != stamp) {
      try {
        loaded = load(files, loaded.generation + 1)
        problem = None
        stamp = now
      } catch {
        // The stamp stays, so that files that are being replaced are read again.
        case error: IllegalArgumentException => problem = Some(error.getMessage)
      }
    }
  }
}

private[driver] object TlsContext {
  private val CheckInterval = 1000000000L

  /** Enough to see that a file was replaced or written. */
  private final case class FileStamp(path: String, modified: Long, size: Long)

  private def stampOf(files: TlsFiles): Seq[FileStamp] = paths(files).map { path =>
    val file = Path.of(path).toFile
    FileStamp(path, file.lastModified(), file.length())
  }

  private def paths(files: TlsFiles): Seq[String] = files.identity match {
    case ClientIdentity.Pem(chain, key) => Seq(files.trustCollectionFile, chain, key)
    case ClientIdentity.Pkcs12(store, password) => Seq(files.trustCollectionFile, store, password)
  }

  /** @throws java.lang.IllegalArgumentException
    *   that names the file and the fault
    */
  private def load(files: TlsFiles, generation: Long): LoadedTls = {
    val trust = emptyStore()
    certificates(files.trustCollectionFile).zipWithIndex.foreach { case (ca, index) => trust.setCertificateEntry(s"ca$index", ca) }
    val password = Array.fill(32)('x')
    val keys = files.identity match {
      case ClientIdentity.Pem(chainFile, keyFile) =>
        val chain = certificates(chainFile)
        val store = emptyStore()
        val key = privateKey(keyFile, chain.head)
        reading(keyFile)(store.setKeyEntry("node", key, password, chain.toArray))
        store -> password
      case ClientIdentity.Pkcs12(storeFile, passwordFile) =>
        val secret = new String(bytes(passwordFile), UTF_8).stripLineEnd.toCharArray
        val store = KeyStore.getInstance("PKCS12")
        reading(storeFile)(store.load(new ByteArrayInputStream(bytes(storeFile)), secret))
        store -> secret
    }
    val leaf = keys._1.aliases().asScala.filter(keys._1.isKeyEntry).toList match {
      case List(alias) => keys._1.getCertificate(alias)
      case found => throw invalid(paths(files)(1), s"it holds ${found.size} private keys. Supply a file with exactly one")
    }
    val keyManagers = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm)
    val trustManagers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm)
    reading(paths(files)(1))(keyManagers.init(keys._1, keys._2))
    trustManagers.init(trust)
    Arrays.fill(keys._2, '0')
    val context = SSLContext.getInstance("TLSv1.3")
    context.init(keyManagers.getKeyManagers, trustManagers.getTrustManagers, new SecureRandom())
    val expires = leaf match {
      case certificate: X509Certificate => certificate.getNotAfter.toInstant
      case _ => Instant.MAX
    }
    new LoadedTls(context.getSocketFactory, expires, generation)
  }

  private def emptyStore(): KeyStore = {
    val store = KeyStore.getInstance("PKCS12")
    store.load(null, null)
    store
  }

  private def certificates(file: String): Seq[X509Certificate] = {
    val found = reading(file) {
      CertificateFactory.getInstance("X.509").generateCertificates(new ByteArrayInputStream(bytes(file))).asScala.toSeq
    }
    val certificates = found.collect { case certificate: X509Certificate => certificate }
    if (certificates.isEmpty) throw invalid(file, "it holds no certificate. Supply certificates in PEM")
    certificates
  }

  private val Pkcs8 = "-----BEGIN PRIVATE KEY-----([A-Za-z0-9+/=\\s]+)-----END PRIVATE KEY-----".r

  private def privateKey(file: String, certificate: X509Certificate): PrivateKey = {
    val text = new String(bytes(file))
    Pkcs8.findAllMatchIn(text).map(_.group(1)).toList match {
      case List(body) =>
        val der = Base64.getMimeDecoder.decode(body)
        val notItsKey = "the private key is not the one of the certificate"
        try {
          val key = KeyFactory.getInstance(certificate.getPublicKey.getAlgorithm).generatePrivate(new PKCS8EncodedKeySpec(der))
          if (!belongTogether(key, certificate)) throw invalid(file, notItsKey)
          key
        } catch { case _: InvalidKeySpecException => throw invalid(file, notItsKey) }
        finally Arrays.fill(der, 0.toByte)
      case Nil if text.contains("ENCRYPTED") => throw invalid(file, "the private key is encrypted. Supply an unencrypted PKCS#8 key")
      case Nil if text.contains("EC PRIVATE KEY") || text.contains("RSA PRIVATE KEY") =>
        throw invalid(file, "the private key is not PKCS#8. Convert it: openssl pkcs8 -topk8 -nodes -in FILE -out NEW")
      case Nil => throw invalid(file, "it holds no private key. Supply an unencrypted PKCS#8 key in PEM")
      case _ => throw invalid(file, "it holds several private keys. Supply a file with exactly one")
    }
  }

  /** Whether a signature of the key verifies under the certificate. */
  private def belongTogether(key: PrivateKey, certificate: X509Certificate): Boolean = {
    val algorithm = key.getAlgorithm match {
      case "EC" => "SHA256withECDSA"
      case "RSA" => "SHA256withRSA"
      case other => other
    }
    val message = Array[Byte](1, 2, 3)
    val signer = Signature.getInstance(algorithm)
    signer.initSign(key)
    signer.update(message)
    val verifier = Signature.getInstance(algorithm)
    verifier.initVerify(certificate.getPublicKey)
    verifier.update(message)
    verifier.verify(signer.sign())
  }

  private def bytes(file: String): Array[Byte] = reading(file)(Files.readAllBytes(Path.of(file)))

  private def reading[A](file: String)(read: => A): A =
    try read
    catch {
      case error: IOException => throw invalid(file, s"it cannot be read (${error.getClass.getSimpleName}). Check path, mode and password")
      case error: GeneralSecurityException => throw invalid(file, s"it cannot be used (${error.getClass.getSimpleName}). Check its format")
    }

  private def invalid(file: String, fault: String): IllegalArgumentException = new IllegalArgumentException(s"$file: $fault")
}
