// How a signature is obtained from the vault. A call of its own for each signature is the only way today; a signer that joins concurrent
// signatures into one batch call implements the same trait.
package io.cantonkeyvault.driver

import io.opentelemetry.context.Context

private[driver] trait MessageSigner {

  /** @param keyId
    *   a key id in the form of the vault
    * @param message
    *   the message, at most 4096 bytes, not its digest
    */
  def sign(keyId: String, algorithm: String, message: Array[Byte], context: Context, deadline: CallDeadline): Array[Byte]
}

private[driver] final class OneCallPerSignature(client: VaultClient) extends MessageSigner {
  override def sign(keyId: String, algorithm: String, message: Array[Byte], context: Context, deadline: CallDeadline): Array[Byte] = {
    val body = Json.obj("algorithm" -> Json.text(algorithm), "message" -> Json.bytes(message))
    client.call(VaultCall("POST", s"/v1/keys/$keyId/sign", body), context, deadline).bytes("signature")
  }
}
