// Key specs, algorithms, public keys, health and errors of KMS drivers of version 1, as Canton declares them. For compilation only: Canton
// provides the real ones.
package com.digitalasset.canton.crypto.kms.driver.api.v1

sealed trait KeySpec extends Product with Serializable

sealed trait SigningKeySpec extends KeySpec

object SigningKeySpec {
  case object EcCurve25519 extends SigningKeySpec
  case object EcP256 extends SigningKeySpec
  case object EcP384 extends SigningKeySpec
  case object EcSecp256k1 extends SigningKeySpec
}

sealed trait EncryptionKeySpec extends KeySpec

object EncryptionKeySpec {
  case object EcP256 extends EncryptionKeySpec
  case object Rsa2048 extends EncryptionKeySpec
}

sealed trait SigningAlgoSpec

object SigningAlgoSpec {
  case object Ed25519 extends SigningAlgoSpec
  case object EcDsaSha256 extends SigningAlgoSpec
  case object EcDsaSha384 extends SigningAlgoSpec
}

sealed trait EncryptionAlgoSpec

object EncryptionAlgoSpec {
  case object EciesHkdfHmacSha256Aes128Cbc extends EncryptionAlgoSpec
  case object RsaEsOaepSha256 extends EncryptionAlgoSpec
}

final case class PublicKey(key: Array[Byte], spec: KeySpec)

final case class KmsDriverException(exception: Throwable, retryable: Boolean) extends RuntimeException(exception)

sealed trait KmsDriverHealth extends Product with Serializable

object KmsDriverHealth {
  case object Ok extends KmsDriverHealth
  final case class Degraded(reason: String) extends KmsDriverHealth
  final case class Failed(reason: String) extends KmsDriverHealth
  final case class Fatal(reason: String) extends KmsDriverHealth
}
