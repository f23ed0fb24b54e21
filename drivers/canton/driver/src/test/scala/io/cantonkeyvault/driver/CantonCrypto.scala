// Public operations as Canton does them, with Bouncy Castle: verification of signatures and encryption to a public key.
package io.cantonkeyvault.driver

import com.digitalasset.canton.crypto.kms.driver.api.v1.{EncryptionAlgoSpec, PublicKey, SigningAlgoSpec}
import org.bouncycastle.jce.provider.BouncyCastleProvider
import org.bouncycastle.jce.spec.IESParameterSpec

import java.security.spec.X509EncodedKeySpec
import java.security.{KeyFactory, PublicKey as JavaKey, SecureRandom, Signature}
import javax.crypto.Cipher

object CantonCrypto {
  private val provider = new BouncyCastleProvider()

  def verify(key: PublicKey, algorithm: SigningAlgoSpec, message: Array[Byte], signature: Array[Byte]): Boolean = {
    val (kind, name) = algorithm match {
      case SigningAlgoSpec.Ed25519 => "Ed25519" -> "Ed25519"
      case SigningAlgoSpec.EcDsaSha256 => "EC" -> "SHA256withECDSA"
      case SigningAlgoSpec.EcDsaSha384 => "EC" -> "SHA384withECDSA"
    }
    val verifier = Signature.getInstance(name, provider)
    verifier.initVerify(javaKey(kind, key))
    verifier.update(message)
    verifier.verify(signature)
  }

  def encrypt(key: PublicKey, algorithm: EncryptionAlgoSpec, message: Array[Byte]): Array[Byte] = algorithm match {
    case EncryptionAlgoSpec.EciesHkdfHmacSha256Aes128Cbc =>
      val iv = new Array[Byte](16)
      new SecureRandom().nextBytes(iv)
      val cipher = Cipher.getInstance("ECIESwithSHA256andAES-CBC", provider)
      cipher.init(Cipher.ENCRYPT_MODE, javaKey("EC", key), new IESParameterSpec(Array.empty[Byte], Array.empty[Byte], 512, 128, iv))
      iv ++ cipher.doFinal(message)
    case EncryptionAlgoSpec.RsaEsOaepSha256 =>
      val cipher = Cipher.getInstance("RSA/NONE/OAEPWithSHA256AndMGF1Padding", provider)
      cipher.init(Cipher.ENCRYPT_MODE, javaKey("RSA", key))
      cipher.doFinal(message)
  }

  private def javaKey(kind: String, key: PublicKey): JavaKey =
    KeyFactory.getInstance(kind, provider).generatePublic(new X509EncodedKeySpec(key.key))
}
