// A vault for the suites: the release binary in `dev`, in a folder and on ports of its own, which can be killed and started again.
package io.cantonkeyvault.driver

import com.typesafe.config.{Config, ConfigFactory}
import io.opentelemetry.context.Context
import org.scalatest.concurrent.Eventually
import org.scalatest.time.{Millis, Seconds, Span}
import org.slf4j.LoggerFactory

import java.io.File
import java.net.{ServerSocket, URI}
import java.nio.file.{Files, Path}
import scala.concurrent.duration.*
import scala.concurrent.{Await, ExecutionContext, Future}
import scala.jdk.CollectionConverters.*
import scala.sys.process.{Process, ProcessLogger}
import scala.util.Try

final class TestVault(val folder: Path = Files.createTempDirectory("driver-suite"), val port: Int = TestVault.freePort()) extends AutoCloseable {
  private val opsPort = TestVault.freePort()
  private var process: Option[java.lang.Process] = None

  val url: URI = new URI(s"https://127.0.0.1:$port")

  def start(): this.type = {
    val command = Seq(TestVault.binary, "dev", "--dir", folder.toString, "--listen", s"127.0.0.1:$port", "--ops-listen", s"127.0.0.1:$opsPort")
    val log = folder.resolve("log").toFile
    val output = java.lang.ProcessBuilder.Redirect.appendTo(log)
    process = Some(new java.lang.ProcessBuilder(command*).redirectErrorStream(true).redirectOutput(output).start())
    TestVault.eventually(assert(admin("key-admin", "status")._1 == 0, s"the vault does not start: see $log"))
    this
  }

  /** Like kill -9. */
  def kill(): Unit = {
    process.foreach(_.destroyForcibly().waitFor())
    process = None
  }

  override def close(): Unit = kill()

  def pki(name: String): String = folder.resolve("pki").resolve(name).toString

  /** Runs the command line as a principal: exit code and output. */
  def admin(principal: String, arguments: String*): (Int, String) = {
    val output = new StringBuilder
    val environment = Seq(
      "KEYVAULT_URL" -> url.toString,
      "KEYVAULT_CA" -> pki("ca.pem"),
      "KEYVAULT_CERT" -> pki(s"$principal.pem"),
      "KEYVAULT_KEY" -> pki(s"$principal.key"),
    )
    val logger = ProcessLogger(line => output.append(line).append('\n'): Unit)
    val code = Process(TestVault.binary +: arguments, None, environment*).!(logger)
    code -> output.toString
  }

  def adminOk(principal: String, arguments: String*): String = {
    val (code, output) = admin(principal, arguments*)
    assert(code == 0, s"${arguments.mkString(" ")}: $output")
    output
  }

  /** The newest audit entries of an operation, as JSON. */
  def entries(operation: String): Seq[Config] = {
    val json = adminOk("auditor", "audit", "query", "--operation", operation, "--output", "json")
    ConfigFactory.parseString(s"""{"answer": $json}""").getConfig("answer").getConfigList("items").asScala.toSeq
  }

  def config(urls: Seq[URI] = Seq(url), principal: String = "participant1", timeouts: Timeouts = Timeouts()): DriverConfig =
    DriverConfig(
      urls,
      "participant1",
      TlsFiles(pki("ca.pem"), ClientIdentity.Pem(pki(s"$principal.pem"), pki(s"$principal.key"))),
      timeouts,
    )

  def driver(driverConfig: DriverConfig = config()): KeyVaultDriver =
    new KeyVaultDriverFactory().create(driverConfig, LoggerFactory.getLogger(_), ExecutionContext.global)
}

object TestVault extends Eventually {
  override implicit def patienceConfig: PatienceConfig = PatienceConfig(Span(60, Seconds), Span(50, Millis))

  /** The binary under test. There is no default, so that the suites cannot pass without one. */
  def binary: String = {
    val path = sys.env.getOrElse("KEYVAULT_BINARY", sys.error("set KEYVAULT_BINARY to the canton-keyvault to test"))
    require(new File(path).canExecute, s"$path is not an executable file")
    path
  }

  def freePort(): Int = {
    val socket = new ServerSocket(0)
    try socket.getLocalPort
    finally socket.close()
  }

  val noContext: Context = Context.root()

  def await[A](future: Future[A]): A = Await.result(future, 90.seconds)

  def outcome[A](future: Future[A]): Try[A] = Try(await(future))
}
