// Creations of keys whose outcome is not known. Canton repeats a failed creation as a new one. The driver then sends the idempotency key of the
// attempt before, so that the vault answers with the key that it may have created, and no key is orphaned.
package io.cantonkeyvault.driver

import java.util.UUID
import scala.collection.mutable

private[driver] final class Creations(newKey: () => String = () => UUID.randomUUID().toString) {
  private val unresolved = mutable.LinkedHashMap.empty[String, List[String]]

  /** The idempotency key for a creation with this body. */
  def begin(body: String): String = synchronized {
    unresolved.get(body) match {
      case Some(key :: rest) =>
        if (rest.isEmpty) unresolved.remove(body) else unresolved.update(body, rest)
        key
      case _ => newKey()
    }
  }

  /** Keeps the idempotency key of a creation that may have happened. The vault keeps it for 24 hours; the driver keeps the newest 1000. */
  def unknownOutcome(body: String, key: String): Unit = synchronized {
    unresolved.update(body, key :: unresolved.getOrElse(body, Nil))
    if (unresolved.size > Creations.Limit) unresolved.headOption.foreach { case (oldest, _) => unresolved.remove(oldest) }
  }
}

private[driver] object Creations {
  private val Limit = 1000
}
