// Canton's suite of its KMS layer (`KmsCryptoTest`), run with our driver behind it. Compiled only if the class path has Canton's tests.
package com.digitalasset.canton.crypto.provider.kms

import com.digitalasset.canton.config.KmsConfig
import com.digitalasset.canton.crypto.kms.Kms
import com.digitalasset.canton.crypto.{EncryptionAlgorithmSpec, EncryptionKeySpec, SigningAlgorithmSpec, SigningKeySpec}
import com.typesafe.config.ConfigValueFactory

import scala.jdk.CollectionConverters.*

final class KeyVaultKmsCryptoTest extends KmsCryptoTest {
  override protected def kmsConfig: Option[KmsConfig.Driver] = {
    val pki = sys.env("KEYVAULT_TEST_PKI")
    val tls = Map(
      "trust-collection-file" -> s"$pki/ca.pem",
      "cert-chain-file" -> s"$pki/participant1.pem",
      "private-key-file" -> s"$pki/participant1.key",
    )
    val config = Map[String, AnyRef](
      "urls" -> Seq(sys.env("KEYVAULT_TEST_URL")).asJava,
      "node" -> "participant1",
      "tls" -> tls.asJava,
    )
    Some(KmsConfig.Driver("canton-keyvault", ConfigValueFactory.fromMap(config.asJava)))
  }

  override protected def supportedSchemes: Kms.SupportedSchemes = AllSchemes
}

private object AllSchemes extends Kms.SupportedSchemes {
  import com.daml.nonempty.NonEmpty

  private def set[A](first: A, others: A*): NonEmpty[Set[A]] = NonEmpty.mk(Set, first, others*)

  override val supportedSigningKeySpecs: NonEmpty[Set[SigningKeySpec]] =
    set[SigningKeySpec](SigningKeySpec.EcCurve25519, SigningKeySpec.EcP256, SigningKeySpec.EcP384, SigningKeySpec.EcSecp256k1)
  override val supportedSigningAlgoSpecs: NonEmpty[Set[SigningAlgorithmSpec]] =
    set[SigningAlgorithmSpec](SigningAlgorithmSpec.Ed25519, SigningAlgorithmSpec.EcDsaSha256, SigningAlgorithmSpec.EcDsaSha384)
  override val supportedEncryptionKeySpecs: NonEmpty[Set[EncryptionKeySpec]] =
    set[EncryptionKeySpec](EncryptionKeySpec.EcP256, EncryptionKeySpec.Rsa2048)
  override val supportedEncryptionAlgoSpecs: NonEmpty[Set[EncryptionAlgorithmSpec]] =
    set[EncryptionAlgorithmSpec](EncryptionAlgorithmSpec.EciesHkdfHmacSha256Aes128Cbc, EncryptionAlgorithmSpec.RsaOaepSha256)
}
