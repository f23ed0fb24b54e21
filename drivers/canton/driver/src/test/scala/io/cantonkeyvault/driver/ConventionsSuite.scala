// What Canton expects besides the operations: names and usages, traces, the driver in the audit log, the configuration, the service files.
package io.cantonkeyvault.driver

import com.digitalasset.canton.crypto.kms.driver.api.v1.*
import com.digitalasset.canton.crypto.kms.driver.api.v1.KmsDriverFactory
import com.typesafe.config.ConfigFactory
import io.cantonkeyvault.driver.TestVault.{await, noContext}
import io.opentelemetry.api.trace.{Span, SpanContext, TraceFlags, TraceState}
import io.opentelemetry.context.Context
import org.scalatest.BeforeAndAfterAll
import org.scalatest.matchers.should.Matchers
import org.scalatest.wordspec.AnyWordSpec
import pureconfig.ConfigSource

import java.net.URI
import java.util.ServiceLoader
import java.util.jar.JarFile
import scala.concurrent.duration.*
import scala.jdk.CollectionConverters.*

final class ConventionsSuite extends AnyWordSpec with Matchers with BeforeAndAfterAll {
  private val vault = new TestVault().start()
  private val driver = vault.driver()

  override def afterAll(): Unit = {
    driver.close()
    vault.close()
  }

  private def stored(id: String) = ConfigFactory.parseString(vault.adminOk("key-admin", "keys", "show", id, "--output", "json"))

  "names" should {
    "pin the usages that the names of Canton and Splice tell" in {
      val expected = Seq(
        "participant1-namespace" -> Seq("namespace"),
        "participant1-sequencer-auth" -> Seq("proof-of-ownership", "sequencer-authentication"),
        "participant1-signing" -> Seq("proof-of-ownership", "protocol"),
        "participant1-signing-rotated-2026-11-26T10:00:00Z" -> Seq("proof-of-ownership", "protocol"),
        "namespace" -> Seq("namespace"),
        "signing" -> Seq(),
        "anything" -> Seq(),
      )
      expected.foreach { case (name, usages) =>
        val key = stored(await(driver.generateSigningKeyPair(SigningKeySpec.EcCurve25519, Some(name))(noContext)))
        key.getString("name") shouldBe name
        key.getStringList("usage").asScala.toSeq.sorted shouldBe usages
        key.getString("class") shouldBe (if (usages == Seq("namespace")) "permanent" else "long-term")
      }
    }

    "be accepted whatever they contain" in {
      Seq("", " ", "a\nb\u0000c", "x" * 300, "x" * 1000, "\uD835\uDD1E" * 300, "\"quoted\\\"").foreach { name =>
        await(driver.keyExistsAndIsActive(await(driver.generateSymmetricKey(Some(name))(noContext)))(noContext))
      }
    }
  }

  "the audit log" should {
    "name the driver with its version, and the trace of the caller" in {
      val span = SpanContext.create("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", TraceFlags.getSampled, TraceState.getDefault)
      val context = Context.root().`with`(Span.wrap(span))
      val id = await(driver.generateSigningKeyPair(SigningKeySpec.EcCurve25519, None)(context))
      await(driver.sign(Array[Byte](1), id, SigningAlgoSpec.Ed25519)(context)) should have length 64
      val entry = vault.entries("keys.sign").find(_.getString("key_id") == id).getOrElse(fail("no entry"))
      entry.getString("trace_id") shouldBe span.getTraceId
      entry.getString("client") shouldBe s"canton-keyvault-driver/${DriverVersion.value}"
      DriverVersion.value should fullyMatch regex """\d+\.\d+\.\d+.*"""
    }
  }

  "the factory" should {
    "be found through both service files" in {
      val found = ServiceLoader.load(classOf[KmsDriverFactory]).asScala.toSeq
      found.map(factory => (factory.name, factory.version)) shouldBe Seq("canton-keyvault" -> 1)
      ServiceLoader.load(classOf[com.digitalasset.canton.crypto.kms.driver.api.KmsDriverFactory]).asScala.toSeq should have size 1
      found.head.buildInfo shouldBe Some(s"canton-keyvault-driver ${DriverVersion.value}")
    }
  }

  "the configuration" should {
    val factory = new KeyVaultDriverFactory()
    def read(text: String) = ConfigSource.string(text).load[DriverConfig](pureconfig.Derivation.Successful(factory.configReader))
    val pem = """tls { trust-collection-file = "ca.pem", cert-chain-file = "node.pem", private-key-file = "node.key" }"""
    val minimal = s"""urls = ["https://vault:8443"], node = participant1, $pem"""

    "have defaults" in {
      val expected = DriverConfig(Seq(new URI("https://vault:8443")), "participant1", TlsFiles("ca.pem", ClientIdentity.Pem("node.pem", "node.key")))
      read(minimal) shouldBe Right(expected)
    }

    "read back what it writes, confidentially or not" in {
      val all = s"""$minimal, connections = 4, timeouts { connect = 1s, call = 5s, create = 1m, health = 500ms }"""
      val pkcs12 =
        """urls = ["https://a:1", "https://b"], node = n, tls { trust-collection-file = ca, key-store-file = p12, key-store-password-file = pw }"""
      Seq(minimal, all, pkcs12).foreach { text =>
        val config = read(text).getOrElse(fail(text))
        Seq(true, false).foreach { confidential =>
          val written = factory.configWriter(confidential).to(config).render()
          read(written) shouldBe Right(config)
        }
      }
      read(all).map(_.timeouts) shouldBe Right(Timeouts(1.second, 5.seconds, 1.minute, 500.millis))
    }

    "refuse what is misspelled, missing or contradictory, and name it" in {
      Seq(
        s"$minimal, conections = 4" -> "conections",
        s"""node = n, $pem""" -> "urls",
        s"""urls = [], node = n, $pem""" -> "urls is empty",
        s"""urls = ["http://vault"], node = n, $pem""" -> "https://host:port",
        s"""urls = ["https://vault/path"], node = n, $pem""" -> "https://host:port",
        s"""urls = ["https://vault"], node = "", $pem""" -> "node is empty",
        s"$minimal, connections = 0" -> "connections",
        s"$minimal, timeouts { call = soon }" -> "duration",
        s"$minimal, timeouts { call = 0s }" -> "duration",
        """urls = ["https://v"], node = n, tls { trust-collection-file = ca }""" -> "either",
        s"""urls = ["https://v"], node = n, tls { trust-collection-file = ca, cert-chain-file = c, key-store-file = k }""" -> "either",
      ).foreach { case (text, hint) => read(text).left.map(_.prettyPrint()).left.getOrElse(fail(text)) should include(hint) }
    }

    "name the file that cannot be used when the driver is created" in {
      val files = TlsFiles(vault.pki("ca.pem"), ClientIdentity.Pem(vault.pki("participant1.pem"), vault.pki("participant2.key")))
      val error = intercept[IllegalArgumentException](vault.driver(vault.config().copy(tls = files)))
      error.getMessage should include("participant2.key")
    }
  }

  "the jar" should {
    "hold our package and the two service files only" in {
      val jars = new java.io.File("target").listFiles().filter(_.getName.matches("canton-keyvault-driver-[0-9.]+\\.jar"))
      jars should have length 1
      val jar = new JarFile(jars.head)
      val names = jar.entries().asScala.filterNot(_.isDirectory).map(_.getName).toSeq
      val service = "META-INF/services/com.digitalasset.canton.crypto.kms.driver.api."
      val others = names.filterNot(name => name.startsWith("io/cantonkeyvault/driver/") || name == "META-INF/MANIFEST.MF")
      others.toSet shouldBe Set(s"${service}KmsDriverFactory", s"${service}v1.KmsDriverFactory")
      names should contain("io/cantonkeyvault/driver/KeyVaultDriverFactory.class")
      jar.close()
    }
  }
}
