// The idle connections to one vault, the most recently used first. A connection that is old, or was opened with a replaced certificate, is closed.
package io.cantonkeyvault.driver

import java.io.IOException
import java.net.URI
import java.util.concurrent.{ConcurrentHashMap, ConcurrentLinkedDeque}
import java.util.concurrent.atomic.{AtomicBoolean, AtomicInteger}
import scala.concurrent.duration.*

private[driver] final class ConnectionPool(val url: URI, tls: TlsContext, timeouts: Timeouts, maxIdle: Int, nanoTime: () => Long) {
  private val idle = new ConcurrentLinkedDeque[HttpConnection]()
  private val idleCount = new AtomicInteger(0)
  private val busy = ConcurrentHashMap.newKeySet[HttpConnection]()
  private val closed = new AtomicBoolean(false)

  /** Whether the last new connection broke at its first request, as it does if the vault rejects the client certificate. */
  private val brokeWhenNew = new AtomicBoolean(false)

  /** One exchange, on an idle connection if there is one. If an idle connection fails before the answer begins, the vault may have closed it
    * meanwhile: the request is sent once more on a new connection.
    *
    * @throws Unreachable
    *   if the vault does not answer in time
    */
  def exchange(request: HttpRequest, deadline: CallDeadline): HttpResponse =
    takeIdle() match {
      case None => onNewConnection(request, deadline)
      case Some(connection) =>
        try finish(connection, whileBusy(connection)(connection.exchange(request, deadline)))
        catch {
          case error: IOException =>
            connection.abort()
            if (closed.get || connection.hasAnswered || deadline.remainingMillis <= 0) throw DriverErrors.unreachable(url.toString, error, sent = true)
            onNewConnection(request, deadline)
        }
    }

  /** Also ends the exchanges that run. */
  def close(): Unit = {
    closed.set(true)
    busy.forEach(_.abort())
    closeIdle()
  }

  private def closeIdle(): Unit = Iterator.continually(Option(idle.pollFirst())).takeWhile(_.isDefined).flatten.foreach(_.close())

  private def whileBusy(connection: HttpConnection)(exchange: => HttpResponse): HttpResponse = {
    busy.add(connection)
    // The pool may have been closed before the connection was added.
    if (closed.get) connection.abort()
    try exchange
    finally busy.remove(connection): Unit
  }

  private def onNewConnection(request: HttpRequest, deadline: CallDeadline): HttpResponse = {
    val connect = new CallDeadline(nanoTime() + timeouts.connect.toNanos.min(deadline.remainingMillis.max(1) * 1000000L), nanoTime)
    val connection =
      try HttpConnection.open(url, tls.current, connect, nanoTime(), expectAlert = brokeWhenNew.get)
      catch { case error: IOException => throw DriverErrors.unreachable(url.toString, error, sent = false) }
    try {
      val response = whileBusy(connection)(connection.exchange(request, deadline))
      brokeWhenNew.set(false)
      finish(connection, response)
    } catch {
      case error: IOException =>
        brokeWhenNew.set(!connection.hasAnswered)
        connection.abort()
        throw DriverErrors.unreachable(url.toString, error, sent = true)
    }
  }

  private def finish(connection: HttpConnection, response: HttpResponse): HttpResponse = {
    if (!response.keepAlive || closed.get || !isFresh(connection)) connection.close()
    else if (idleCount.incrementAndGet() > maxIdle) {
      idleCount.decrementAndGet()
      connection.close()
    } else {
      idle.addFirst(connection)
      if (closed.get) closeIdle()
    }
    response
  }

  private def takeIdle(): Option[HttpConnection] = {
    val taken = Option(idle.pollFirst())
    taken.foreach(_ => idleCount.decrementAndGet())
    taken.flatMap { connection =>
      if (isFresh(connection)) Some(connection)
      else {
        connection.close()
        takeIdle()
      }
    }
  }

  /** A connection is replaced after ten minutes, so that a revoked certificate and a new address of the vault take effect. */
  private def isFresh(connection: HttpConnection): Boolean =
    connection.generation == tls.current.generation && nanoTime() - connection.openedAt < 10.minutes.toNanos
}
