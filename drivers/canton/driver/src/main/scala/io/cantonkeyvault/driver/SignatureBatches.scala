// Signatures of one key that wait while calls for it are in flight share the next call, as commits share a sync. No signature waits for others to
// come, each has its own deadline and audit entry, and a message that the vault refuses fails alone.
package io.cantonkeyvault.driver

import io.opentelemetry.context.Context

import java.util.concurrent.atomic.AtomicInteger
import java.util.concurrent.{ConcurrentHashMap, RejectedExecutionException, ThreadPoolExecutor}
import scala.concurrent.duration.FiniteDuration
import scala.concurrent.{Future, Promise}
import scala.util.control.NonFatal

private[driver] final class SignatureBatches(
    client: VaultClient,
    threads: ThreadPoolExecutor,
    time: FiniteDuration,
    maxWaiting: Int,
    nanoTime: () => Long,
) {
  import SignatureBatches.*

  private val queues = new ConcurrentHashMap[(String, String), KeyQueue]()
  private val waiting = new AtomicInteger(0)

  /** Signs a message of at most 4096 bytes.
    *
    * @param keyId
    *   a key id in the form of the vault
    */
  def sign(keyId: String, algorithm: String, message: Array[Byte], context: Context): Future[Array[Byte]] = {
    val signature = new Waiting(message, context, new CallDeadline(nanoTime() + time.toNanos, nanoTime))
    if (waiting.incrementAndGet() > maxWaiting) {
      waiting.decrementAndGet(): Unit
      signature.fail("too many calls wait. Raise `connections`, or reduce the load", retryable = true)
    } else {
      val queue = queues.computeIfAbsent((keyId, algorithm), _ => new KeyQueue(keyId, algorithm))
      if (queue.add(signature)) start(new Call(queue))
    }
    signature.promise.future
  }

  /** Fails the signatures that wait. Those in flight fail when their connection closes. */
  def close(): Unit = queues.values.forEach(_.takeAll().foreach(_.fail("the driver is closed", retryable = false)))

  private def start(call: Call): Unit =
    try threads.execute(call)
    catch {
      case _: RejectedExecutionException if threads.isShutdown => call.abandon("the driver is closed", retryable = false)
      case _: RejectedExecutionException => call.abandon("too many calls wait. Raise `connections`, or reduce the load", retryable = true)
    }

  /** Signs what waits for one key, with one call. */
  private final class Call(queue: KeyQueue) extends Runnable {
    override def run(): Unit = {
      val batch = queue.take()
      waiting.addAndGet(-batch.size): Unit
      val (late, inTime) = batch.partition(_.deadline.remainingMillis <= 0)
      late.foreach(_.fail(s"no connection was free within $time. Raise `connections`, or reduce the load", retryable = true))
      try signAll(queue, inTime)
      catch {
        case fatal: Throwable =>
          inTime.foreach(_.fail(s"a fatal error of the JVM: ${fatal.getClass.getName}", retryable = false))
          throw fatal
      } finally if (queue.ended()) start(this)
    }

    def abandon(reason: String, retryable: Boolean): Unit = {
      val all = queue.takeAll()
      waiting.addAndGet(-all.size): Unit
      all.foreach(_.fail(reason, retryable))
      // What was added meanwhile counts on this call.
      if (queue.ended()) abandon(reason, retryable)
    }
  }

  private def signAll(queue: KeyQueue, batch: Seq[Waiting]): Unit = batch match {
    case Seq() => ()
    case Seq(one) => settle(one)(signOne(queue, one))
    case several =>
      try {
        val signatures = signSeveral(queue, several)
        several.zip(signatures).foreach { case (one, signature) => one.promise.trySuccess(signature): Unit }
      } catch {
        case _: InterruptedException => several.foreach(_.fail("the driver is closed", retryable = false))
        // One of the messages may be the reason. Alone, each gets its own answer.
        case refused: Refused if !refused.retryable => several.foreach(one => settle(one)(signOne(queue, one)))
        case NonFatal(error) => several.foreach(_.failWith(error))
      }
  }

  private def settle(one: Waiting)(signature: => Array[Byte]): Unit =
    try one.promise.trySuccess(signature): Unit
    catch {
      case _: InterruptedException => one.fail("the driver is closed", retryable = false)
      case NonFatal(error) => one.failWith(error)
    }

  private def signOne(queue: KeyQueue, one: Waiting): Array[Byte] = {
    val body = Json.obj("algorithm" -> Json.text(queue.algorithm), "message" -> Json.bytes(one.message))
    client.call(VaultCall.use(queue.keyId, "sign", body), one.context, one.deadline).bytes("signature")
  }

  private def signSeveral(queue: KeyQueue, several: Seq[Waiting]): Seq[Array[Byte]] = {
    val messages = several.map { one =>
      val trace = VaultClient.traceparent(one.context).map("traceparent" -> Json.text(_))
      Json.written((Seq("message" -> Json.bytes(one.message)) ++ trace)*)
    }
    val body = Json.obj("algorithm" -> Json.text(queue.algorithm), "messages" -> messages.mkString("[", ",", "]"))
    // The first one has waited longest.
    val answer = client.call(VaultCall.use(queue.keyId, "sign-batch", body), several.head.context, several.head.deadline)
    val signatures = answer.bytesList("signatures")
    if (signatures.size != several.size)
      throw new Unreachable(s"${several.size} messages have ${signatures.size} signatures. Check that the URL is a vault's", sent = true, retryable = false)
    signatures
  }
}

private[driver] object SignatureBatches {

  /** Messages in one call, as the vault allows. */
  private val MaxMessages = 64

  /** Their bytes together. In base64 and with their traces they fit into the 64 KiB of a body. */
  private val MaxBytes = 36 * 1024

  /** Calls in flight for one key. The second one is on its way while the vault works on the first. */
  private val MaxInFlight = 2

  private final class Waiting(val message: Array[Byte], val context: Context, val deadline: CallDeadline) {
    val promise: Promise[Array[Byte]] = Promise()

    def fail(reason: String, retryable: Boolean): Unit = promise.tryFailure(DriverErrors.failure(s"sign: $reason", retryable)): Unit

    def failWith(error: Throwable): Unit = promise.tryFailure(DriverErrors.forCanton("sign", error)): Unit
  }

  /** What waits for one key and algorithm, oldest first. */
  private final class KeyQueue(val keyId: String, val algorithm: String) {
    private val waiting = new java.util.ArrayDeque[Waiting]()
    private var inFlight = 0

    /** Adds a signature. Returns whether a call must be started for it. */
    def add(signature: Waiting): Boolean = synchronized {
      waiting.add(signature): Unit
      begins()
    }

    /** The signatures of the next call. */
    def take(): Seq[Waiting] = synchronized {
      val batch = Seq.newBuilder[Waiting]
      var (messages, bytes) = (0, 0)
      while (!waiting.isEmpty && messages < MaxMessages && (messages == 0 || bytes + waiting.peek().message.length <= MaxBytes)) {
        val next = waiting.poll()
        messages += 1
        bytes += next.message.length
        batch += next
      }
      batch.result()
    }

    def takeAll(): Seq[Waiting] = synchronized {
      val all = waiting.toArray(Array.empty[Waiting]).toSeq
      waiting.clear()
      all
    }

    /** A call ended. Returns whether another one must be started. */
    def ended(): Boolean = synchronized {
      inFlight -= 1
      begins()
    }

    private def begins(): Boolean = {
      val begin = !waiting.isEmpty && inFlight < MaxInFlight
      if (begin) inFlight += 1
      begin
    }
  }
}
