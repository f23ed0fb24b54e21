// The twelve operations of Canton's KMS driver API v1. Each runs on a thread of the driver and ends within its timeout, because Canton sets none.
package io.cantonkeyvault.driver

import com.digitalasset.canton.crypto.kms.driver.api.v1.*
import io.opentelemetry.context.Context
import org.slf4j.Logger

import java.time.Instant
import java.util.concurrent.{ArrayBlockingQueue, RejectedExecutionException, ThreadPoolExecutor, TimeUnit}
import java.util.concurrent.atomic.AtomicLong
import scala.concurrent.Future
import scala.concurrent.duration.*
import scala.jdk.CollectionConverters.*

final class KeyVaultDriver(config: DriverConfig, logger: Logger) extends KmsDriver {
  import KeyVaultDriver.*

  private val tls = new TlsContext(config.tls, () => System.nanoTime())
  private val client = new VaultClient(config, tls, () => System.nanoTime(), Thread.sleep(_))
  private val creations = new Creations()
  private val healthCheck = new HealthCheck(config, client, tls, () => Instant.now())
  private val calls = threads("canton-keyvault-driver", config.connections, MaxWaiting)
  private val signatures = new SignatureBatches(client, calls, config.timeouts.call, MaxWaiting, () => System.nanoTime())
  private val healthCalls = threads("canton-keyvault-health", 1, 4)

  logger.info(s"${DriverVersion.Product} ${DriverVersion.value}: node ${config.node}, vaults ${config.urls.mkString(", ")}")

  // `def`, because the trait reads them before the fields of this class exist.
  override def supportedSigningKeySpecs: Set[SigningKeySpec] = signingKeySpecs.keySet
  override def supportedSigningAlgoSpecs: Set[SigningAlgoSpec] = signingAlgorithms.keySet
  override def supportedEncryptionKeySpecs: Set[EncryptionKeySpec] = encryptionKeySpecs.keySet
  override def supportedEncryptionAlgoSpecs: Set[EncryptionAlgoSpec] = encryptionAlgorithms.keySet

  override def health: Future[KmsDriverHealth] =
    on(healthCalls, "health", HealthWait)(_ => healthCheck.run()).recover { case error => KmsDriverHealth.Failed(error.getMessage) }(parasitic)

  override def generateSigningKeyPair(signingKeySpec: SigningKeySpec, keyName: Option[String])(traceContext: Context): Future[String] =
    create("signing", signingKeySpecs(signingKeySpec), keyName, KeyNames.usages(keyName), traceContext)

  override def generateEncryptionKeyPair(encryptionKeySpec: EncryptionKeySpec, keyName: Option[String])(traceContext: Context): Future[String] =
    create("encryption", encryptionKeySpecs(encryptionKeySpec), keyName, None, traceContext)

  override def generateSymmetricKey(keyName: Option[String])(traceContext: Context): Future[String] =
    create("symmetric", "aes-256", keyName, None, traceContext)

  override def sign(data: Array[Byte], keyId: String, algoSpec: SigningAlgoSpec)(traceContext: Context): Future[Array[Byte]] =
    if (KeyId.matches(keyId)) signatures.sign(keyId, signingAlgorithms(algoSpec), data, traceContext) else otherKeyId("sign")

  override def decryptAsymmetric(ciphertext: Array[Byte], keyId: String, algoSpec: EncryptionAlgoSpec)(
      traceContext: Context
  ): Future[Array[Byte]] = decrypt("decryptAsymmetric", encryptionAlgorithms(algoSpec), ciphertext, keyId, traceContext)

  override def encryptSymmetric(data: Array[Byte], keyId: String)(traceContext: Context): Future[Array[Byte]] =
    withKey("encryptSymmetric", keyId) { deadline =>
      val body = Json.obj("algorithm" -> Json.text(Symmetric), "plaintext" -> Json.bytes(data))
      post(keyId, "encrypt", body, traceContext, deadline).bytes("ciphertext")
    }

  override def decryptSymmetric(ciphertext: Array[Byte], keyId: String)(traceContext: Context): Future[Array[Byte]] =
    decrypt("decryptSymmetric", Symmetric, ciphertext, keyId, traceContext)

  override def getPublicKey(keyId: String)(traceContext: Context): Future[PublicKey] = withKey("getPublicKey", keyId) { deadline =>
    val key = show(keyId, traceContext, deadline)
    specOf(key.text("purpose"), key.text("spec")) match {
      case Some(spec) => PublicKey(key.bytes("public_key"), spec)
      case None => throw DriverErrors.failure(s"getPublicKey: $keyId is a ${key.text("purpose")} key, which has no public key", retryable = false)
    }
  }

  override def keyExistsAndIsActive(keyId: String)(traceContext: Context): Future[Unit] = withKey("keyExistsAndIsActive", keyId) { deadline =>
    val state = show(keyId, traceContext, deadline).text("state")
    if (state != "active") throw DriverErrors.failure(s"keyExistsAndIsActive: $keyId is $state in the vault", retryable = false)
  }

  /** Schedules the deletion of the key in the vault. A key whose deletion is scheduled or done already is no error. */
  override def deleteKey(keyId: String)(traceContext: Context): Future[Unit] = withKey("deleteKey", keyId) { deadline =>
    try client.call(VaultCall.delete(keyId), traceContext, deadline): Unit
    catch {
      case refused: Refused if refused.code == "invalid_key_state" && deletedStates(show(keyId, traceContext, deadline).text("state")) => ()
    }
  }

  /** Ends the calls that run or wait: each fails at once. */
  override def close(): Unit = {
    Seq(calls, healthCalls).foreach(_.shutdown())
    client.close()
    signatures.close()
    Seq(calls, healthCalls).flatMap(_.shutdownNow().asScala).foreach {
      case waiting: DriverCall[?] => waiting.abandon()
      case _ => ()
    }
  }

  private def create(purpose: String, spec: String, keyName: Option[String], usages: Option[Seq[String]], context: Context): Future[String] =
    on(calls, s"generate $purpose key", config.timeouts.create) { deadline =>
      val fields = Seq("node" -> Json.text(config.node), "purpose" -> Json.text(purpose), "spec" -> Json.text(spec)) ++
        KeyNames.forVault(keyName).map("name" -> Json.text(_)) ++
        usages.map("usage" -> Json.texts(_))
      val body = Json.obj(fields*)
      val identity = new String(body, java.nio.charset.StandardCharsets.UTF_8)
      val idempotencyKey = creations.begin(identity)
      try client.call(VaultCall.create(body, idempotencyKey), context, deadline).text("id")
      catch {
        case error: Throwable =>
          creations.unknownOutcome(identity, idempotencyKey)
          throw error
      }
    }

  private def decrypt(operation: String, algorithm: String, ciphertext: Array[Byte], keyId: String, context: Context): Future[Array[Byte]] =
    withKey(operation, keyId) { deadline =>
      val body = Json.obj("algorithm" -> Json.text(algorithm), "ciphertext" -> Json.bytes(ciphertext))
      post(keyId, "decrypt", body, context, deadline).bytes("plaintext")
    }

  private def post(keyId: String, action: String, body: Array[Byte], context: Context, deadline: CallDeadline): JsonObject =
    client.call(VaultCall.use(keyId, action, body), context, deadline)

  private def show(keyId: String, context: Context, deadline: CallDeadline): JsonObject =
    client.call(VaultCall.read(s"/v1/keys/$keyId"), context, deadline)

  /** Runs a call on a key. An id of another form is refused here, because it would become part of a path. */
  private def withKey[A](operation: String, keyId: String)(call: CallDeadline => A): Future[A] =
    if (KeyId.matches(keyId)) on(calls, operation, config.timeouts.call)(call)
    else otherKeyId(operation)

  private def otherKeyId[A](operation: String): Future[A] =
    Future.failed(DriverErrors.failure(s"$operation: the key id is not one of the vault: 1220 and 64 hex digits, or sym- and 32", retryable = false))

  private def on[A](threads: ThreadPoolExecutor, operation: String, time: FiniteDuration)(call: CallDeadline => A): Future[A] = {
    val task = new DriverCall(operation, time, call)
    try threads.execute(task)
    catch {
      case _: RejectedExecutionException if threads.isShutdown => task.abandon()
      case _: RejectedExecutionException => task.fail("too many calls wait. Raise `connections`, or reduce the load", retryable = true)
    }
    task.future
  }
}

private[driver] object KeyVaultDriver {

  /** Calls that may wait for a thread. */
  private val MaxWaiting = 4096

  /** How long a health check may wait for those before it. The check itself has a timeout for each vault. */
  private val HealthWait = 1.minute

  private val parasitic = scala.concurrent.ExecutionContext.parasitic

  private val KeyId = "1220[0-9a-f]{64}|sym-[0-9a-f]{32}".r

  private val Symmetric = "aes-256-gcm"

  private val signingKeySpecs: Map[SigningKeySpec, String] = Map(
    SigningKeySpec.EcCurve25519 -> "ec-curve25519",
    SigningKeySpec.EcP256 -> "ec-p256",
    SigningKeySpec.EcP384 -> "ec-p384",
    SigningKeySpec.EcSecp256k1 -> "ec-secp256k1",
  )

  private val signingAlgorithms: Map[SigningAlgoSpec, String] = Map(
    SigningAlgoSpec.Ed25519 -> "ed25519",
    SigningAlgoSpec.EcDsaSha256 -> "ecdsa-sha256",
    SigningAlgoSpec.EcDsaSha384 -> "ecdsa-sha384",
  )

  private val encryptionKeySpecs: Map[EncryptionKeySpec, String] = Map(
    EncryptionKeySpec.EcP256 -> "ec-p256",
    EncryptionKeySpec.Rsa2048 -> "rsa-2048",
  )

  private val encryptionAlgorithms: Map[EncryptionAlgoSpec, String] = Map(
    EncryptionAlgoSpec.EciesHkdfHmacSha256Aes128Cbc -> "ecies-hkdf-hmac-sha256-aes128-cbc",
    EncryptionAlgoSpec.RsaEsOaepSha256 -> "rsa-oaep-sha256",
  )

  private val deletedStates = Set("pending-deletion", "destroyed")

  private def specOf(purpose: String, spec: String): Option[KeySpec] = {
    def inverse[K](map: Map[K, String]): Option[K] = map.collectFirst { case (key, `spec`) => key }
    purpose match {
      case "signing" => inverse(signingKeySpecs)
      case "encryption" => inverse(encryptionKeySpecs)
      case _ => None
    }
  }

  private def threads(name: String, number: Int, waiting: Int): ThreadPoolExecutor = {
    val count = new AtomicLong(0)
    val pool = new ThreadPoolExecutor(
      number,
      number,
      1,
      TimeUnit.MINUTES,
      new ArrayBlockingQueue[Runnable](waiting),
      (task: Runnable) => {
        val thread = new Thread(task, s"$name-${count.incrementAndGet()}")
        thread.setDaemon(true)
        thread
      },
    )
    pool.allowCoreThreadTimeOut(true)
    pool
  }
}
