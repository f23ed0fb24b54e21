// The four keys of a node in the files that Canton wrote: imported, used through the driver under their fingerprints, and exported byte for byte.
package io.cantonkeyvault.driver

import com.digitalasset.canton.crypto.kms.driver.api.v1.*
import com.typesafe.config.{Config, ConfigFactory}
import io.cantonkeyvault.driver.TestVault.{await, noContext}
import org.scalatest.matchers.should.Matchers
import org.scalatest.wordspec.AnyWordSpec

import java.nio.file.{Files, Path}
import java.util.{Base64, HexFormat}
import scala.jdk.CollectionConverters.*

final class ImportedKeysSuite extends AnyWordSpec with Matchers {
  import ImportedKeysSuite.*

  private val nodes = Seq(
    "Canton's defaults" -> Seq(
      "signing/ec-curve25519/namespace/0",
      "signing/ec-curve25519/sequencer-authentication/0",
      "signing/ec-curve25519/protocol/0",
      "encryption/ec-p256/0/0",
    ),
    "Canton's defaults with a KMS" -> Seq(
      "signing/ec-p256/namespace/0",
      "signing/ec-p256/sequencer-authentication/0",
      "signing/ec-p256/protocol/0",
      "encryption/rsa-2048/0/0",
    ),
    "the other curves" -> Seq(
      "signing/ec-p384/namespace/0",
      "signing/ec-secp256k1/sequencer-authentication/0",
      "signing/ec-p384/protocol/0",
      "encryption/ec-p256/1/0",
    ),
  )

  for ((schemes, names) <- nodes) {
    s"the keys of a node with $schemes" should {
      "move in, work through the driver, and move out" in {
        val keys = names.map(name => items("key_pairs").find(_.getString("name") == name).getOrElse(fail(s"no key pair $name")))
        val vault = new TestVault().start()
        try {
          val folder = Files.createDirectory(vault.folder.resolve("keys"))
          val files = keys.zipWithIndex.map { case (key, index) => Files.write(folder.resolve(s"$index.key"), base64(key, "export_b64")) }
          vault.adminOk("key-admin", (Seq("canton", "import", "--node", "participant1", "--exportable") ++ files.map(_.toString))*)

          val driver = vault.driver()
          try keys.foreach(key => expectWorks(driver, key))
          finally driver.close()

          val out = Files.createDirectory(vault.folder.resolve("out"))
          val ids = keys.map(_.getString("fingerprint"))
          vault.adminOk("exporter", (Seq("canton", "export", "--node", "participant1", "--out-dir", out.toString) ++ ids)*)
          keys.foreach { key =>
            Files.readAllBytes(out.resolve(s"${key.getString("fingerprint")}.key")) shouldBe base64(key, "export_b64")
          }
        } finally vault.close()
      }
    }
  }

  /** The driver finds the key under its fingerprint, with the public key of before, and uses it. */
  private def expectWorks(driver: KeyVaultDriver, key: Config): Unit = {
    val (name, id) = (key.getString("name"), key.getString("fingerprint"))
    await(driver.keyExistsAndIsActive(id)(noContext))
    val public = await(driver.getPublicKey(id)(noContext))
    withClue(name)(public.key shouldBe hex(key, "spki_hex"))
    withClue(name)(public.spec shouldBe specs(key.getString("purpose") -> key.getString("spec")))
    public.spec match {
      case spec: SigningKeySpec =>
        val algorithm = spec match {
          case SigningKeySpec.EcCurve25519 => SigningAlgoSpec.Ed25519
          case SigningKeySpec.EcP384 => SigningAlgoSpec.EcDsaSha384
          case SigningKeySpec.EcP256 | SigningKeySpec.EcSecp256k1 => SigningAlgoSpec.EcDsaSha256
        }
        val message = name.getBytes
        val signature = await(driver.sign(message, id, algorithm)(noContext))
        withClue(name)(CantonCrypto.verify(public, algorithm, message, signature) shouldBe true)
      case spec: EncryptionKeySpec =>
        val algorithm = spec match {
          case EncryptionKeySpec.EcP256 => EncryptionAlgoSpec.EciesHkdfHmacSha256Aes128Cbc
          case EncryptionKeySpec.Rsa2048 => EncryptionAlgoSpec.RsaEsOaepSha256
        }
        val fresh = CantonCrypto.encrypt(public, algorithm, name.getBytes) -> name.getBytes
        // What Canton encrypted for the key before it moved.
        val former = items("ciphertexts").filter(_.getString("key") == name).map(item => base64(item, "ciphertext_b64") -> hex(item, "plaintext_hex"))
        withClue(name)(former should not be empty)
        (fresh +: former).foreach { case (ciphertext, plaintext) =>
          withClue(name)(await(driver.decryptAsymmetric(ciphertext, id, algorithm)(noContext)) shouldBe plaintext)
        }
    }
    ()
  }
}

private object ImportedKeysSuite {

  /** What Canton's own classes wrote: the vectors of the vault. */
  private lazy val made: Config = {
    val folders = Iterator.iterate(Path.of("").toAbsolutePath)(_.getParent).takeWhile(_ != null)
    val file = folders.map(_.resolve("tests/vectors/canton-made.json")).find(Files.exists(_)).getOrElse(sys.error("no canton-made.json"))
    ConfigFactory.parseFile(file.toFile)
  }

  def items(group: String): Seq[Config] = made.getConfigList(group).asScala.toSeq

  def base64(item: Config, field: String): Array[Byte] = Base64.getDecoder.decode(item.getString(field))

  def hex(item: Config, field: String): Array[Byte] = HexFormat.of().parseHex(item.getString(field))

  val specs: Map[(String, String), KeySpec] = Map(
    ("signing", "ec-curve25519") -> SigningKeySpec.EcCurve25519,
    ("signing", "ec-p256") -> SigningKeySpec.EcP256,
    ("signing", "ec-p384") -> SigningKeySpec.EcP384,
    ("signing", "ec-secp256k1") -> SigningKeySpec.EcSecp256k1,
    ("encryption", "ec-p256") -> EncryptionKeySpec.EcP256,
    ("encryption", "rsa-2048") -> EncryptionKeySpec.Rsa2048,
  )
}
