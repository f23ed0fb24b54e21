// One call of Canton that waits for a thread of the driver or runs on one. Its time begins when Canton calls, and its future always completes.
package io.cantonkeyvault.driver

import scala.concurrent.duration.FiniteDuration
import scala.concurrent.{Future, Promise}
import scala.util.control.NonFatal

private[driver] final class DriverCall[A](operation: String, time: FiniteDuration, call: CallDeadline => A) extends Runnable {
  private val deadline = new CallDeadline(System.nanoTime() + time.toNanos, () => System.nanoTime())
  private val promise = Promise[A]()

  def future: Future[A] = promise.future

  override def run(): Unit =
    if (deadline.remainingMillis <= 0) fail(s"no connection was free within $time. Raise `connections`, or reduce the load", retryable = true)
    else
      try promise.trySuccess(call(deadline)): Unit
      catch {
        // Only closing the driver interrupts its threads.
        case _: InterruptedException => abandon()
        case NonFatal(error) => promise.tryFailure(DriverErrors.forCanton(operation, error)): Unit
        case fatal: Throwable =>
          fail(s"a fatal error of the JVM: ${fatal.getClass.getName}", retryable = false)
          throw fatal
      }

  def fail(reason: String, retryable: Boolean): Unit = promise.tryFailure(DriverErrors.failure(s"$operation: $reason", retryable)): Unit

  /** The driver was closed before the call had a result. */
  def abandon(): Unit = fail("the driver is closed", retryable = false)
}
