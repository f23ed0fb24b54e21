// Calls to the vaults: failover between the URLs, repetition within the time of one operation, and the problem documents. A vault that failed is
// tried last for a while.
package io.cantonkeyvault.driver

import io.opentelemetry.api.trace.Span
import io.opentelemetry.context.Context

import java.net.URI
import java.util.concurrent.ConcurrentHashMap
import scala.concurrent.duration.*
import scala.util.control.NonFatal

/** One call of the vault's API. Each of its kinds may be repeated, at the same vault or another one, after an attempt whose outcome is not known. A
  * call that may not be repeated has no place here.
  */
private[driver] final class VaultCall private (val method: String, val path: String, val body: Array[Byte], val idempotencyKey: Option[String])

private[driver] object VaultCall {

  /** Reads. */
  def read(path: String): VaultCall = new VaultCall("GET", path, Array.empty, None)

  /** Uses a key: signs, encrypts or decrypts. A repetition changes no key. It adds an audit entry, since the vault did the use twice. */
  def use(keyId: String, action: String, body: Array[Byte]): VaultCall = new VaultCall("POST", s"/v1/keys/$keyId/$action", body, None)

  /** Creates a key. The vault answers a repetition with the same key, because it has the same idempotency key. */
  def create(body: Array[Byte], idempotencyKey: String): VaultCall = new VaultCall("POST", "/v1/keys", body, Some(idempotencyKey))

  /** Schedules the deletion of a key. The vault refuses a repetition with `invalid_key_state`, and the time of the deletion stays. */
  def delete(keyId: String): VaultCall = new VaultCall("DELETE", s"/v1/keys/$keyId", Array.empty, None)
}

private[driver] final class VaultClient(config: DriverConfig, tls: TlsContext, nanoTime: () => Long, sleep: Long => Unit) {
  import VaultClient.*

  private val pools: Seq[ConnectionPool] = config.urls.map(new ConnectionPool(_, tls, config.timeouts, config.connections, nanoTime))
  private val failedAt = new ConcurrentHashMap[URI, java.lang.Long]()

  /** The answer of the first vault that gives one. Errors that a retry can cure are repeated until the time is over.
    *
    * @throws Refused
    *   if a vault refuses the call
    * @throws Unreachable
    *   if no vault answers in time
    */
  def call(call: VaultCall, context: Context, deadline: CallDeadline): JsonObject =
    attempt(request(call, context), deadline, FirstPause)

  /** One call to one vault, without repetition. */
  def callOnly(url: URI, call: VaultCall, context: Context, time: FiniteDuration): JsonObject =
    pools.find(_.url == url) match {
      case Some(pool) => exchange(pool, request(call, context), new CallDeadline(nanoTime() + time.toNanos, nanoTime))
      case None => throw new Unreachable(s"$url is not configured", sent = false, retryable = false)
    }

  def close(): Unit = pools.foreach(_.close())

  @annotation.tailrec
  private def attempt(request: HttpRequest, deadline: CallDeadline, pause: FiniteDuration): JsonObject =
    onAnyVault(request, deadline) match {
      case Right(answer) => answer
      case Left(failed) if !failed.retryable || deadline.remainingMillis <= pause.toMillis => throw failed.error
      case Left(_) =>
        sleep(pause.toMillis)
        attempt(request, deadline, (pause * 2).min(MaxPause))
    }

  /** The vaults in order, those that failed recently last. A refusal that no other vault would answer differently ends the search. The vaults that
    * did not fail recently share the time, so that one that stalls leaves time for the next.
    */
  private def onAnyVault(request: HttpRequest, deadline: CallDeadline): Either[Failed, JsonObject] = {
    val (failed, working) = pools.partition(pool => recentlyFailed(pool.url))
    val order = working.zipWithIndex.map { case (pool, index) => pool -> (working.size - index) } ++ failed.map(_ -> 1)
    order.foldLeft[Either[Failed, JsonObject]](Left(notTried)) {
      case (done @ Right(_), _) => done
      case (Left(previous), _) if previous.isFinal || (previous.tried && deadline.remainingMillis <= 0) => Left(previous)
      case (Left(previous), (pool, parts)) =>
        try {
          val answer = exchange(pool, request, deadline.share(parts))
          failedAt.remove(pool.url)
          Right(answer)
        } catch {
          case refused: Refused if !refused.retryable =>
            failedAt.remove(pool.url)
            Left(Failed(refused, retryable = false, isFinal = true))
          case NonFatal(error) =>
            failedAt.put(pool.url, nanoTime())
            val retryable = error match {
              case unreachable: Unreachable => unreachable.retryable
              case refused: Refused => refused.retryable
              case _ => false
            }
            // If one vault rejects the certificate and another is down, waiting for the other helps.
            Left(Failed(withEarlier(error, previous), retryable || (previous.tried && previous.retryable), isFinal = false))
        }
    }
  }

  /** The error of the last vault, with what was wrong with those before it, so that the message names every URL. */
  private def withEarlier(error: Throwable, previous: Failed): Throwable = {
    def and(text: String): String = s"$text; before it ${previous.error.getMessage}"
    error match {
      case _ if !previous.tried => error
      case refused: Refused => new Refused(refused.url, refused.code, and(refused.detail), refused.status, refused.requestId, refused.retryable)
      case unreachable: Unreachable => new Unreachable(and(unreachable.reason), unreachable.sent, unreachable.retryable)
      case other => other
    }
  }

  /** After the pause, the first call that asks tries the vault, and the others go on without it until that one has succeeded. */
  private def recentlyFailed(url: URI): Boolean =
    Option(failedAt.get(url)).exists { at =>
      val now = nanoTime()
      now - at < Cooldown.toNanos || !failedAt.replace(url, at, now)
    }

  private def exchange(pool: ConnectionPool, request: HttpRequest, deadline: CallDeadline): JsonObject = {
    val response = pool.exchange(request, deadline)
    val document = JsonObject.parse(response.body)
    if (response.status >= 200 && response.status < 300)
      document.getOrElse(throw new Unreachable(s"${pool.url}: the answer is not JSON. Check that the URL is a vault's", sent = true, retryable = false))
    else throw refusal(pool.url, response.status, document)
  }

  /** A proxy between the driver and the vault answers without a problem document. */
  private def refusal(url: URI, status: Int, document: Option[JsonObject]): Refused = {
    def text(field: String): Option[String] = document.flatMap(_.optionalText(field))
    val retryable = document.flatMap(_.optionalFlag("retryable")).getOrElse(RetryableStatus(status))
    val detail = text("detail").orElse(text("title")).getOrElse("an answer without a problem document, which is not the vault's")
    new Refused(url.toString, text("code").getOrElse("unknown"), detail, status, text("request_id").getOrElse("unknown"), retryable)
  }

  private def request(call: VaultCall, context: Context): HttpRequest = {
    val headers = Seq("user-agent" -> s"${DriverVersion.Product}/${DriverVersion.value}") ++
      traceparent(context).map("traceparent" -> _) ++
      call.idempotencyKey.map("idempotency-key" -> _)
    HttpRequest(call.method, call.path, headers, call.body)
  }
}

private[driver] object VaultClient {
  private val FirstPause: FiniteDuration = 100.millis
  private val MaxPause: FiniteDuration = 2.seconds
  private val Cooldown: FiniteDuration = 10.seconds
  private val RetryableStatus = Set(429, 502, 503, 504)

  private final case class Failed(error: Throwable, retryable: Boolean, isFinal: Boolean, tried: Boolean = true)
  private val notTried = Failed(new Unreachable("no vault is configured", sent = false, retryable = false), retryable = true, isFinal = false, tried = false)

  /** W3C Trace Context of the span in the context, if there is one. */
  def traceparent(context: Context): Option[String] = {
    val span = Span.fromContext(context).getSpanContext
    Option.when(span.isValid)(s"00-${span.getTraceId}-${span.getSpanId}-${span.getTraceFlags.asHex}")
  }
}
