// The KMS driver of version 1, as Canton declares it. For compilation only: Canton provides the real one.
package com.digitalasset.canton.crypto.kms.driver.api.v1

import io.opentelemetry.context.Context

import scala.concurrent.Future

trait KmsDriver extends com.digitalasset.canton.crypto.kms.driver.api.KmsDriver with AutoCloseable {

  // Canton checks in the initialiser that no set is empty. Without a statement here, the compiled driver would not call it.
  require(supportedSigningKeySpecs.nonEmpty && supportedSigningAlgoSpecs.nonEmpty)
  require(supportedEncryptionKeySpecs.nonEmpty && supportedEncryptionAlgoSpecs.nonEmpty)

  def health: Future[KmsDriverHealth]

  def supportedSigningKeySpecs: Set[SigningKeySpec]
  def supportedSigningAlgoSpecs: Set[SigningAlgoSpec]
  def supportedEncryptionKeySpecs: Set[EncryptionKeySpec]
  def supportedEncryptionAlgoSpecs: Set[EncryptionAlgoSpec]

  def generateSigningKeyPair(signingKeySpec: SigningKeySpec, keyName: Option[String])(traceContext: Context): Future[String]
  def generateEncryptionKeyPair(encryptionKeySpec: EncryptionKeySpec, keyName: Option[String])(traceContext: Context): Future[String]
  def generateSymmetricKey(keyName: Option[String])(traceContext: Context): Future[String]

  def sign(data: Array[Byte], keyId: String, algoSpec: SigningAlgoSpec)(traceContext: Context): Future[Array[Byte]]
  def decryptAsymmetric(ciphertext: Array[Byte], keyId: String, algoSpec: EncryptionAlgoSpec)(traceContext: Context): Future[Array[Byte]]
  def encryptSymmetric(data: Array[Byte], keyId: String)(traceContext: Context): Future[Array[Byte]]
  def decryptSymmetric(ciphertext: Array[Byte], keyId: String)(traceContext: Context): Future[Array[Byte]]

  def getPublicKey(keyId: String)(traceContext: Context): Future[PublicKey]
  def keyExistsAndIsActive(keyId: String)(traceContext: Context): Future[Unit]
  def deleteKey(keyId: String)(traceContext: Context): Future[Unit]
}
