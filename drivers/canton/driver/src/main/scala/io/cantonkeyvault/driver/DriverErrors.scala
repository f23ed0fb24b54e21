// The errors of the driver and the one rule that decides whether Canton retries a call. Canton repeats a retryable call for ever, so that only
// an error that time alone can cure is retryable. No message contains a secret.
package io.cantonkeyvault.driver

import com.digitalasset.canton.crypto.kms.driver.api.v1.KmsDriverException

import java.io.{EOFException, IOException}
import java.net.SocketTimeoutException
import javax.net.ssl.SSLException
import scala.util.control.{NoStackTrace, NonFatal}

/** What went wrong, in one line. Canton logs the stack trace of the cause, which would show nothing more. */
final class DriverError(message: String) extends RuntimeException(message) with NoStackTrace

/** The vault did not answer. `sent` tells whether it can have received the request. */
private[driver] final class Unreachable(val reason: String, val sent: Boolean, val retryable: Boolean)
    extends IOException(reason)
    with NoStackTrace

/** The vault answered with a problem document. */
private[driver] final class Refused(
    val url: String,
    val code: String,
    val detail: String,
    val status: Int,
    val requestId: String,
    val retryable: Boolean,
) extends RuntimeException(s"$url answered $status $code (request $requestId): $detail")
    with NoStackTrace

private[driver] object DriverErrors {

  def failure(message: String, retryable: Boolean): KmsDriverException = KmsDriverException(new DriverError(message), retryable)

  /** The exception for Canton. */
  def forCanton(operation: String, error: Throwable): KmsDriverException = error match {
    case exception: KmsDriverException => exception
    case refused: Refused => failure(s"$operation: ${refused.getMessage}", refused.retryable)
    case unreachable: Unreachable => failure(s"$operation: ${unreachable.reason}", unreachable.retryable)
    case NonFatal(other) => failure(s"$operation: ${describe(other)}", retryable = false)
    case fatal => throw fatal
  }

  /** A failed connection. A certificate that one side rejects stays rejected; everything else can pass. */
  def unreachable(url: String, error: IOException, sent: Boolean): Unreachable = error match {
    case known: Unreachable => known
    case other => new Unreachable(s"$url: ${describe(other)}", sent, retryable = !isRejection(other))
  }

  private def isRejection(error: Throwable): Boolean = error match {
    case ssl: SSLException =>
      val causes = Iterator.iterate[Throwable](ssl)(_.getCause).takeWhile(_ != null).take(8).toList
      val closed = causes.exists(cause => cause.isInstanceOf[EOFException] || cause.isInstanceOf[SocketTimeoutException])
      val text = causes.flatMap(cause => Option(cause.getMessage)).mkString(" ").toLowerCase
      !closed && !text.contains("closed") && !text.contains("reset") && !text.contains("terminated")
    case _ => false
  }

  /** The message, or the class where the message is null. */
  private def describe(error: Throwable): String = {
    val name = error.getClass.getSimpleName
    Option(error.getMessage).filter(_.nonEmpty).fold(name)(message => s"$message ($name)")
  }
}
