// The contract that Canton's own driver suite checks, and the cases of its KMS layer, against the release binary over mutual TLS.
package io.cantonkeyvault.driver

import com.digitalasset.canton.crypto.kms.driver.api.v1.*
import io.cantonkeyvault.driver.TestVault.{await, noContext, outcome}
import org.scalatest.BeforeAndAfterAll
import org.scalatest.matchers.should.Matchers
import org.scalatest.wordspec.AnyWordSpec

import scala.util.{Failure, Random}

final class ContractSuite extends AnyWordSpec with Matchers with BeforeAndAfterAll {
  private val vault = new TestVault().start()
  private val driver = vault.driver()

  override def afterAll(): Unit = {
    driver.close()
    vault.close()
  }

  private val signing: Seq[(SigningAlgoSpec, SigningKeySpec)] = Seq(
    SigningAlgoSpec.Ed25519 -> SigningKeySpec.EcCurve25519,
    SigningAlgoSpec.EcDsaSha256 -> SigningKeySpec.EcP256,
    SigningAlgoSpec.EcDsaSha384 -> SigningKeySpec.EcP384,
    SigningAlgoSpec.EcDsaSha256 -> SigningKeySpec.EcSecp256k1,
  )

  private val encryption: Seq[(EncryptionAlgoSpec, EncryptionKeySpec)] = Seq(
    EncryptionAlgoSpec.EciesHkdfHmacSha256Aes128Cbc -> EncryptionKeySpec.EcP256,
    EncryptionAlgoSpec.RsaEsOaepSha256 -> EncryptionKeySpec.Rsa2048,
  )

  private def signingKey(spec: SigningKeySpec): String = await(driver.generateSigningKeyPair(spec, None)(noContext))
  private def encryptionKey(spec: EncryptionKeySpec): String = await(driver.generateEncryptionKeyPair(spec, None)(noContext))
  private def symmetricKey(): String = await(driver.generateSymmetricKey(None)(noContext))
  private def publicKey(id: String): PublicKey = await(driver.getPublicKey(id)(noContext))
  private def bytes(length: Int): Array[Byte] = new Random(length).nextBytes(length)

  /** A failure that Canton does not repeat. */
  private def refused[A](future: scala.concurrent.Future[A]): String = outcome(future) match {
    case Failure(KmsDriverException(cause, retryable)) =>
      retryable shouldBe false
      cause.getStackTrace shouldBe empty
      cause.getMessage
    case other => fail(s"expected a refusal, got $other")
  }

  "the driver" should {
    "report Ok" in { TestVault.eventually(await(driver.health) shouldBe KmsDriverHealth.Ok) }

    "support all key specs and algorithms of API v1" in {
      driver.supportedSigningKeySpecs shouldBe signing.map(_._2).toSet
      driver.supportedSigningAlgoSpecs shouldBe signing.map(_._1).toSet
      driver.supportedEncryptionKeySpecs shouldBe encryption.map(_._2).toSet
      driver.supportedEncryptionAlgoSpecs shouldBe encryption.map(_._1).toSet
    }

    signing.map(_._2).distinct.foreach { spec =>
      s"generate, find and delete a signing key of $spec" in {
        val id = signingKey(spec)
        await(driver.keyExistsAndIsActive(id)(noContext))
        publicKey(id).spec shouldBe spec
        await(driver.deleteKey(id)(noContext))
        await(driver.deleteKey(id)(noContext))
        refused(driver.keyExistsAndIsActive(id)(noContext)) should include("pending-deletion")
        refused(driver.sign(bytes(4), id, SigningAlgoSpec.Ed25519)(noContext)) should include("key_pending_deletion")
      }
    }

    encryption.map(_._2).foreach { spec =>
      s"generate, find and delete an encryption key of $spec" in {
        val id = encryptionKey(spec)
        await(driver.keyExistsAndIsActive(id)(noContext))
        publicKey(id).spec shouldBe spec
        await(driver.deleteKey(id)(noContext))
      }
    }

    "generate, find and delete a symmetric key" in {
      val id = symmetricKey()
      await(driver.keyExistsAndIsActive(id)(noContext))
      await(driver.deleteKey(id)(noContext))
      refused(driver.encryptSymmetric(bytes(4), id)(noContext)) should include("key_pending_deletion")
    }

    signing.foreach { case (algorithm, spec) =>
      s"sign with $algorithm under $spec so that Canton verifies" in {
        val id = signingKey(spec)
        Seq(0, 4, 34, 4096).foreach { length =>
          val signature = await(driver.sign(bytes(length), id, algorithm)(noContext))
          CantonCrypto.verify(publicKey(id), algorithm, bytes(length), signature) shouldBe true
          CantonCrypto.verify(publicKey(id), algorithm, bytes(length) :+ 1.toByte, signature) shouldBe false
        }
        refused(driver.sign(bytes(4097), id, algorithm)(noContext)) should include("4096")
      }
    }

    encryption.foreach { case (algorithm, spec) =>
      s"decrypt with $algorithm what Canton encrypts" in {
        val id = encryptionKey(spec)
        Seq(0, 4, 16, 32, if (algorithm == EncryptionAlgoSpec.RsaEsOaepSha256) 190 else 127).foreach { length =>
          val ciphertext = CantonCrypto.encrypt(publicKey(id), algorithm, bytes(length))
          ciphertext.length should be <= 256
          await(driver.decryptAsymmetric(ciphertext, id, algorithm)(noContext)) shouldBe bytes(length)
        }
        val damaged = CantonCrypto.encrypt(publicKey(id), algorithm, bytes(16))
        damaged(damaged.length - 1) = (damaged.last ^ 1).toByte
        refused(driver.decryptAsymmetric(damaged, id, algorithm)(noContext)) should include("decryption_failed")
        val other = encryptionKey(spec)
        val foreign = CantonCrypto.encrypt(publicKey(other), algorithm, bytes(16))
        refused(driver.decryptAsymmetric(foreign, id, algorithm)(noContext)) should include("decryption_failed")
      }
    }

    "encrypt and decrypt under a symmetric key, within Canton's limits" in {
      val id = symmetricKey()
      Seq(0, 1, 4096).foreach { length =>
        val ciphertext = await(driver.encryptSymmetric(bytes(length), id)(noContext))
        ciphertext.length should be <= 6144
        await(driver.decryptSymmetric(ciphertext, id)(noContext)) shouldBe bytes(length)
      }
      refused(driver.encryptSymmetric(bytes(4097), id)(noContext)) should include("4096")
      refused(driver.decryptSymmetric(bytes(6145), id)(noContext)) should include("6144")
      refused(driver.decryptSymmetric(bytes(64), id)(noContext)) should include("decryption_failed")
      val foreign = await(driver.encryptSymmetric(bytes(4), symmetricKey())(noContext))
      refused(driver.decryptSymmetric(foreign, id)(noContext)) should include("decryption_failed")
    }

    "refuse an algorithm that does not fit the key" in {
      refused(driver.sign(bytes(4), signingKey(SigningKeySpec.EcP256), SigningAlgoSpec.Ed25519)(noContext)) should include("unsupported_algorithm")
      refused(driver.sign(bytes(4), encryptionKey(EncryptionKeySpec.EcP256), SigningAlgoSpec.EcDsaSha256)(noContext)) should
        include("unsupported_algorithm")
      val signer = signingKey(SigningKeySpec.EcP256)
      refused(driver.decryptAsymmetric(bytes(129), signer, EncryptionAlgoSpec.EciesHkdfHmacSha256Aes128Cbc)(noContext)) should
        include("unsupported_algorithm")
    }

    "have no public key of a symmetric key" in {
      refused(driver.getPublicKey(symmetricKey())(noContext)) should include("no public key")
    }

    "refuse key ids that do not exist or have another form" in {
      val unknown = "1220" + "0" * 64
      refused(driver.sign(bytes(4), unknown, SigningAlgoSpec.Ed25519)(noContext)) should include("not_found")
      refused(driver.keyExistsAndIsActive(unknown)(noContext)) should include("not_found")
      Seq("invalid", "", unknown + "/sign", unknown + "?x", "arn:aws:kms:eu-west-1:1:key/x", ("1220" + "AB" * 32)).foreach { id =>
        refused(driver.sign(bytes(4), id, SigningAlgoSpec.Ed25519)(noContext)) should include("key id")
        refused(driver.getPublicKey(id)(noContext)) should include("key id")
        refused(driver.deleteKey(id)(noContext)) should include("key id")
      }
    }

    "refuse a disabled key, and use it again once it is enabled" in {
      val id = signingKey(SigningKeySpec.EcCurve25519)
      vault.adminOk("key-admin", "keys", "disable", id)
      refused(driver.sign(bytes(4), id, SigningAlgoSpec.Ed25519)(noContext)) should include("key_disabled")
      refused(driver.keyExistsAndIsActive(id)(noContext)) should include("disabled")
      vault.adminOk("key-admin", "keys", "enable", id)
      await(driver.sign(bytes(4), id, SigningAlgoSpec.Ed25519)(noContext)) should have length 64
    }

    "fail to delete a namespace key, and say why" in {
      val id = await(driver.generateSigningKeyPair(SigningKeySpec.EcCurve25519, Some("participant1-namespace"))(noContext))
      refused(driver.deleteKey(id)(noContext)) should include("permanent_key")
    }

    "decrypt with a superseded key and not report it as active" in {
      val id = encryptionKey(EncryptionKeySpec.EcP256)
      val algorithm = EncryptionAlgoSpec.EciesHkdfHmacSha256Aes128Cbc
      vault.adminOk("key-admin", "keys", "supersede", id, "--yes")
      await(driver.decryptAsymmetric(CantonCrypto.encrypt(publicKey(id), algorithm, bytes(4)), id, algorithm)(noContext)) shouldBe bytes(4)
      refused(driver.keyExistsAndIsActive(id)(noContext)) should include("superseded")
    }
  }
}
