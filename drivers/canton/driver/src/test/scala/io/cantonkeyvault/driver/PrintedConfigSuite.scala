// What `canton-keyvault canton config` prints, in each form: read as Canton reads its configuration, then by the reader of the driver.
package io.cantonkeyvault.driver

import com.digitalasset.canton.crypto.kms.driver.api.v1.*
import com.typesafe.config.{Config, ConfigFactory, ConfigUtil}
import io.cantonkeyvault.driver.TestVault.{await, noContext}
import org.scalatest.matchers.should.Matchers
import org.scalatest.wordspec.AnyWordSpec
import pureconfig.ConfigSource

import java.net.URI
import java.nio.charset.StandardCharsets.UTF_8
import java.nio.file.{Files, Path}
import scala.jdk.CollectionConverters.*

final class PrintedConfigSuite extends AnyWordSpec with Matchers {

  /** A file name with what HOCON, YAML, a shell or Kubernetes could take for something else. ASCII, because a JVM in the C locale passes nothing else on. */
  private val odd = """C:\a "b" $(c) ${d} $$ 'e' `f` # g // h: i.pem"""

  /** Runs a command without the environment of a caller of a vault. */
  private def run(command: Seq[String]): String = {
    val errors = Files.createTempFile("printed", ".log").toFile
    val builder = new ProcessBuilder(command*).redirectError(errors)
    Seq("KEYVAULT_URL", "KEYVAULT_CA", "KEYVAULT_CERT", "KEYVAULT_KEY").foreach(builder.environment().remove(_))
    val process = builder.start()
    val output = new String(process.getInputStream.readAllBytes(), UTF_8)
    assert(process.waitFor() == 0, s"${command.mkString(" ")}: ${Files.readString(errors.toPath)}")
    output
  }

  private def print(arguments: String*): String = run(Seq(TestVault.binary, "canton", "config") ++ arguments)

  private def temporary(text: String): Path = Files.writeString(Files.createTempFile("printed", ".txt"), text)

  /** The section `crypto` of a node, in a text that Canton reads as one of its configuration files. */
  private def crypto(text: String, kind: String, name: String): Config =
    ConfigFactory.parseString(text).resolve().getConfig(ConfigUtil.joinPath("canton", s"${kind}s", name, "crypto"))

  private def driverConfig(crypto: Config): DriverConfig = {
    val reader = pureconfig.Derivation.Successful(new KeyVaultDriverFactory().configReader)
    val section = crypto.getConfig("kms.config")
    ConfigSource.fromConfig(section).load[DriverConfig](reader).fold(failures => fail(failures.prettyPrint()), identity)
  }

  private def expectSchemes(crypto: Config, signing: (String, String), encryption: (String, String)): Unit = {
    def defaults(section: String) = crypto.getString(s"$section.algorithms.default") -> crypto.getString(s"$section.keys.default")
    (defaults("signing"), defaults("encryption")) shouldBe ((signing, encryption))
    ()
  }

  private def expectDriver(crypto: Config, expected: DriverConfig): Unit = {
    (crypto.getString("provider"), crypto.getString("kms.type")) shouldBe (("kms", "driver"))
    crypto.getString("kms.name") shouldBe new KeyVaultDriverFactory().name
    driverConfig(crypto) shouldBe expected
    expectSchemes(crypto, "ed-25519" -> "ec-curve-25519", "ecies-hkdf-hmac-sha-256-aes-128-cbc" -> "ec-p-256")
  }

  private val urls = Seq("https://vault1.example.org:8443", "https://10.0.0.1", "https://[fd00::1]:443")
  private val vaults = urls.flatMap(url => Seq("--vault", url))
  private def expected(node: String, trust: String, certificate: String, key: String) =
    DriverConfig(urls.map(new URI(_)), node, TlsFiles(trust, ClientIdentity.Pem(certificate, key)))
  private def mounted(node: String) = expected(node, odd, "/keyvault/tls/tls.crt", "/keyvault/tls/tls.key")

  private val kinds = Seq("participant", "sequencer", "mediator")

  "a configuration file" should {
    "be read for every kind and name of a node" in {
      for (kind <- kinds; name <- Seq("node1", "a-b_c", "1", "1e5", "true", "null", "include", "_x", "X" * 30)) {
        val text = print((Seq("--node", "vault.node", "--kind", kind, s"--canton-name=$name", "--trust-collection-file", odd) ++ vaults)*)
        expectDriver(crypto(text, kind, name), expected("vault.node", odd, "tls/vault.node.pem", "tls/vault.node.key"))
      }
    }

    "join others, and hold the other schemes" in {
      val texts = Seq("a", "b").map(node => print("--node", node, "--schemes", "p256-rsa")).mkString
      Seq("a", "b").foreach { node =>
        driverConfig(crypto(texts, "participant", node)).node shouldBe node
        expectSchemes(crypto(texts, "participant", node), "ec-dsa-sha-256" -> "ec-p-256", "rsa-oaep-sha-256" -> "rsa-2048")
      }
    }

    "give a driver that reaches its vault" in {
      val vault = new TestVault().start()
      try {
        val files = Seq("--trust-collection-file" -> "ca.pem", "--cert-chain-file" -> "participant1.pem", "--private-key-file" -> "participant1.key")
        val options = files.flatMap { case (option, file) => Seq(option, vault.pki(file)) }
        val text = print((Seq("--node", "participant1", "--vault", vault.url.toString) ++ options)*)
        val driver = vault.driver(driverConfig(crypto(text, "participant", "participant1")))
        try {
          await(driver.health) shouldBe KmsDriverHealth.Ok
          val key = await(driver.generateSigningKeyPair(SigningKeySpec.EcCurve25519, Some("participant1-signing"))(noContext))
          await(driver.sign(Array[Byte](1), key, SigningAlgoSpec.Ed25519)(noContext)) should have length 64
        } finally driver.close()
      } finally vault.close()
    }
  }

  "the environment" should {
    "be read after a shell, and as Docker reads it" in {
      for (kind <- kinds) {
        val arguments = Seq("--node", "node-1", "--kind", kind, "--trust-collection-file", odd) ++ vaults
        val name = "ADDITIONAL_CONFIG_KEYVAULT_NODE_1"
        val quoted = temporary(print((arguments :+ "--env")*))
        val fromShell = run(Seq("sh", "-c", s"set -a; . $quoted; printenv $name"))
        val plain = print((arguments :+ "--env-file")*).linesIterator.collectFirst { case line if line.startsWith(s"$name=") => line.drop(name.length + 1) }
        Seq(fromShell, plain.getOrElse(fail(name))).foreach(text => expectDriver(crypto(text, kind, "node-1"), mounted("node-1")))
      }
    }
  }

  "the values for Splice" should {
    def values(kind: String): Config = {
      val file = temporary(print((Seq("--node", "node-1", "--kind", kind, "--trust-collection-file", odd, "--splice") ++ vaults)*))
      val script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1], encoding='utf-8'))))"
      ConfigFactory.parseString(run(Seq("python3", "-c", script, file.toString)))
    }

    /** Kubernetes reads `$$` in the value of a variable as `$`. */
    def inContainer(text: String): String = text.replace("$$", "$")

    def variable(values: Config, path: String, name: String): String =
      values.getConfigList(path).asScala.collectFirst { case item if item.getString("name") == name => inContainer(item.getString("value")) }.getOrElse(fail(name))

    /** As the chart writes `kms`: names in kebab case, values as they are. */
    def rendered(section: Config): String =
      section
        .root()
        .asScala
        .map { case (key, value) =>
          val kebab = key.replaceAll("([A-Z])", "-$1").toLowerCase
          value.unwrapped() match {
            case _: java.util.Map[_, _] => s"$kebab = {\n${rendered(section.getConfig(key))}\n}"
            case text => s"$kebab = $text"
          }
        }
        .mkString("\n")

    "be read for a participant, with what the chart adds" in {
      val read = values("participant")
      val kms = s"canton.participants.participant.crypto {\n provider = kms\n kms = {\n${inContainer(rendered(read.getConfig("kms")))}\n}\n}"
      val schemes = variable(read, "additionalEnvVars", "ADDITIONAL_CONFIG_KEYVAULT_SCHEMES")
      expectDriver(crypto(s"$schemes\n$kms", "participant", "participant"), mounted("node-1"))
    }

    "be read for a sequencer and a mediator" in {
      Seq("sequencer", "mediator").foreach { kind =>
        val text = variable(values(kind), s"$kind.additionalEnvVars", "ADDITIONAL_CONFIG_KEYVAULT")
        expectDriver(crypto(text, kind, kind), mounted("node-1"))
      }
    }
  }
}
