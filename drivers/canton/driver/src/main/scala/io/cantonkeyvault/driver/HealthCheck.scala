// The health of the driver: Ok if every vault is ready, Degraded with the reasons if one is, Failed with the reasons if none is.
package io.cantonkeyvault.driver

import com.digitalasset.canton.crypto.kms.driver.api.v1.KmsDriverHealth
import io.opentelemetry.context.Context

import java.net.URI
import java.time.{Duration, Instant}
import scala.util.control.NonFatal

private[driver] final class HealthCheck(config: DriverConfig, client: VaultClient, tls: TlsContext, now: () => Instant) {
  import HealthCheck.*

  /** Asks every vault. Never throws. */
  def run(): KmsDriverHealth = {
    val states = config.urls.map(state)
    val reasons = states.flatMap(_.reasons) ++ tls.reloadProblem.map(problem => s"the new certificate is not in use: $problem") ++ expiry
    if (!states.exists(_.ready)) KmsDriverHealth.Failed(reasons.mkString("; "))
    else if (reasons.nonEmpty) KmsDriverHealth.Degraded(reasons.mkString("; "))
    else KmsDriverHealth.Ok
  }

  private def state(url: URI): State =
    try {
      val status = client.callOnly(url, VaultCall.read("/v1/status"), Context.root(), config.timeouts.health)
      val codes = status.objects("reasons").map(_.text("code"))
      State(status.flag("ready"), codes.map(code => s"$url: $code"))
    } catch {
      case refused: Refused => State(ready = false, Seq(refused.getMessage))
      case unreachable: Unreachable => State(ready = false, Seq(unreachable.reason))
      case NonFatal(error) => State(ready = false, Seq(s"$url: ${error.getClass.getSimpleName}"))
    }

  private def expiry: Option[String] = {
    val expires = tls.current.expires
    Option.when(now().plus(ExpiryNotice).isAfter(expires))(s"the client certificate expires at $expires")
  }
}

private[driver] object HealthCheck {
  private val ExpiryNotice = Duration.ofDays(3)

  private final case class State(ready: Boolean, reasons: Seq[String])
}
