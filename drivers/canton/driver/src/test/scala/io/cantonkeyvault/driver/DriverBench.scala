// Load of signatures through the driver against the release binary: throughput, latency, and the CPU time of this JVM for a signature. Its
// numbers are compared with those of `canton-keyvault bench`, which has no driver in between. `drivers/canton/bench` runs it.
package io.cantonkeyvault.driver

import com.digitalasset.canton.crypto.kms.driver.api.v1.{SigningAlgoSpec, SigningKeySpec}
import com.sun.management.OperatingSystemMXBean
import io.cantonkeyvault.driver.TestVault.{await, noContext}

import java.lang.management.ManagementFactory
import java.util.concurrent.ConcurrentLinkedQueue
import scala.concurrent.duration.*
import scala.jdk.CollectionConverters.*

object DriverBench {
  private val Callers = Seq(1, 16, 64)
  private val Warmup = 5.seconds

  private val process: OperatingSystemMXBean = ManagementFactory.getPlatformMXBean(classOf[OperatingSystemMXBean])

  /** @param arguments
    *   the seconds of each measurement; default: 5
    */
  def main(arguments: Array[String]): Unit = {
    val time = arguments.headOption.flatMap(_.toIntOption).filter(_ > 0).getOrElse(5).seconds
    val vault = new TestVault().start()
    try {
      println("| concurrent calls | connections | signatures/s | p50 ms | p99 ms | JVM CPU per signature |")
      println("|---|---|---|---|---|---|")
      Callers.foreach { callers =>
        val connections = callers.max(DriverConfig.DefaultConnections)
        val driver = vault.driver(vault.config().copy(connections = connections))
        try {
          val id = await(driver.generateSigningKeyPair(SigningKeySpec.EcCurve25519, None)(noContext))
          measure(driver, id, callers, Warmup): Unit
          println(measure(driver, id, callers, time).row(callers, connections))
        } finally driver.close()
      }
    } finally vault.close()
  }

  private final case class Measured(latencies: IndexedSeq[Long], seconds: Double, cpuNanos: Long) {
    private def percentile(share: Double): Double = latencies(((latencies.size - 1) * share).toInt) / 1e6

    def row(callers: Int, connections: Int): String = {
      val count = latencies.size
      f"| $callers | $connections | ${count / seconds}%.0f | ${percentile(0.5)}%.2f | ${percentile(0.99)}%.2f | ${cpuNanos / 1000.0 / count}%.0f µs |"
    }
  }

  /** Each caller waits for its signature before it asks for the next. Ed25519, a message of 34 bytes, as Canton signs. */
  private def measure(driver: KeyVaultDriver, id: String, callers: Int, time: FiniteDuration): Measured = {
    val message = Array.fill[Byte](34)(7)
    val results = new ConcurrentLinkedQueue[IndexedSeq[Long]]()
    val failures = new ConcurrentLinkedQueue[Throwable]()
    val (start, cpu) = (System.nanoTime(), process.getProcessCpuTime)
    val threads = Seq.fill(callers) {
      new Thread(() =>
        try {
          val latencies = IndexedSeq.newBuilder[Long]
          while (System.nanoTime() - start < time.toNanos) {
            val before = System.nanoTime()
            await(driver.sign(message, id, SigningAlgoSpec.Ed25519)(noContext)): Unit
            latencies += System.nanoTime() - before
          }
          results.add(latencies.result()): Unit
        } catch { case error: Exception => failures.add(error): Unit }
      )
    }
    threads.foreach(_.start())
    threads.foreach(_.join())
    val (seconds, cpuNanos) = ((System.nanoTime() - start) / 1e9, process.getProcessCpuTime - cpu)
    failures.asScala.headOption.foreach(throw _)
    Measured(results.asScala.toIndexedSeq.flatten.sorted, seconds, cpuNanos)
  }
}
