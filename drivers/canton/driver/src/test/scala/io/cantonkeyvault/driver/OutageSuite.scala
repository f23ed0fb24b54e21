// A vault that is down, slow, killed, frozen or denied, and a certificate that changes: what Canton sees, and whether it repeats the call.
package io.cantonkeyvault.driver

import com.digitalasset.canton.crypto.kms.driver.api.v1.*
import com.typesafe.config.Config
import io.cantonkeyvault.driver.TestVault.{await, eventually, noContext, outcome}
import org.scalatest.BeforeAndAfterAll
import org.scalatest.matchers.should.Matchers
import org.scalatest.wordspec.AnyWordSpec

import java.nio.file.{Files, Path, StandardCopyOption}
import scala.concurrent.Future
import scala.concurrent.duration.*
import scala.sys.process.*
import scala.util.Failure

final class OutageSuite extends AnyWordSpec with Matchers with BeforeAndAfterAll {
  private val vault = new TestVault().start()
  private val proxy = new TestProxy(vault.port)
  private val short = Timeouts(connect = 1.second, call = 2.seconds, create = 3.seconds, health = 1.second)
  private val message = "a message".getBytes

  override def afterAll(): Unit = {
    proxy.close()
    vault.close()
  }

  private def withDriver[A](config: DriverConfig)(test: KeyVaultDriver => A): A = {
    val driver = vault.driver(config)
    try test(driver)
    finally driver.close()
  }

  private def ed25519(driver: KeyVaultDriver): String = await(driver.generateSigningKeyPair(SigningKeySpec.EcCurve25519, None)(noContext))
  private def sign(driver: KeyVaultDriver, id: String): Future[Array[Byte]] = driver.sign(message, id, SigningAlgoSpec.Ed25519)(noContext)

  private def nowhere(): java.net.URI = new java.net.URI(s"https://127.0.0.1:${TestVault.freePort()}")

  /** The newest entries of calls that were done. */
  private def done(operation: String): Seq[Config] = vault.entries(operation).filter(_.getString("outcome") == "ok")

  /** A creation that was answered from an earlier one has a subject. */
  private def createdKeys(): Int = done("keys.create").count(!_.hasPath("subject"))

  private def failure[A](future: Future[A]): KmsDriverException = outcome(future) match {
    case Failure(exception: KmsDriverException) =>
      exception.exception.getMessage should not include "null"
      exception
    case other => fail(s"expected a failure, got $other")
  }

  "a vault that is down" should {
    "fail calls as retryable, and serve the same driver again when it is back" in withDriver(vault.config(timeouts = short)) { driver =>
      val id = ed25519(driver)
      vault.kill()
      failure(sign(driver, id)).retryable shouldBe true
      failure(driver.keyExistsAndIsActive(id)(noContext)).retryable shouldBe true
      val health = await(driver.health)
      health shouldBe a[KmsDriverHealth.Failed]
      health.toString should (include(vault.url.toString) and not include "null")
      vault.start()
      await(sign(driver, id)) should have length 64
      eventually(await(driver.health) shouldBe KmsDriverHealth.Ok)
    }

    "be waited for within the time of a call" in withDriver(vault.config(timeouts = Timeouts(call = 60.seconds))) { driver =>
      val id = ed25519(driver)
      vault.kill()
      val waiting = sign(driver, id)
      vault.start()
      await(waiting) should have length 64
    }

    "not stop the creation of the driver" in {
      withDriver(vault.config(Seq(nowhere()), timeouts = short)) { driver =>
        await(driver.health) shouldBe a[KmsDriverHealth.Failed]
        failure(driver.generateSymmetricKey(None)(noContext)).retryable shouldBe true
      }
    }
  }

  "several vaults" should {
    "be used in order, with failover" in {
      val first = nowhere()
      withDriver(vault.config(Seq(first, vault.url))) { driver =>
        val id = ed25519(driver)
        await(sign(driver, id)) should have length 64
        val health = await(driver.health)
        health shouldBe a[KmsDriverHealth.Degraded]
        health.toString should include(first.toString)
      }
    }
  }

  "an attempt whose outcome is not known" should {
    "be repeated at the next vault: one key, two entries of a signature, one deletion" in {
      val atTwo = vault.config(Seq(proxy.url, vault.url))
      // The first vault does each call, and its answer is lost. Another driver for each, because a vault that failed is asked last.
      withDriver(atTwo) { driver =>
        // Opens a connection, on which the request reaches the vault.
        await(driver.health) shouldBe KmsDriverHealth.Ok
        val (before, repeated) = (createdKeys(), done("keys.create").size)
        proxy.cutAnswers = true
        try await(driver.keyExistsAndIsActive(ed25519(driver))(noContext))
        finally proxy.cutAnswers = false
        createdKeys() shouldBe before + 1
        // The second vault was asked, and answered with the key of the first.
        done("keys.create").size should be >= repeated + 2
      }
      withDriver(atTwo) { driver =>
        val id = ed25519(driver)
        val signed = done("keys.sign").size
        proxy.cutAnswers = true
        try await(sign(driver, id)) should have length 64
        finally proxy.cutAnswers = false
        done("keys.sign").size shouldBe signed + 2
      }
      withDriver(atTwo) { driver =>
        val id = ed25519(driver)
        val deleted = done("keys.delete").size
        proxy.cutAnswers = true
        try await(driver.deleteKey(id)(noContext))
        finally proxy.cutAnswers = false
        done("keys.delete").size shouldBe deleted + 1
      }
    }
  }

  "a message" should {
    "name every vault that was tried" in {
      val (one, two) = (nowhere(), nowhere())
      withDriver(vault.config(Seq(one, two), timeouts = short)) { driver =>
        failure(driver.generateSymmetricKey(None)(noContext)).exception.getMessage should (include(one.toString) and include(two.toString))
      }
      vault.adminOk("wrapper-admin", "freeze")
      try
        withDriver(vault.config(Seq(one, vault.url), timeouts = short)) { driver =>
          val message = failure(driver.generateSymmetricKey(None)(noContext)).exception.getMessage
          message should (include(one.toString) and include(s"${vault.url} answered 503 frozen"))
          message should not include "\n"
        }
      finally vault.adminOk("wrapper-admin", "unfreeze"): Unit
    }
  }

  "the first vault" should {
    "be preferred again ten seconds after its failure" in {
      var passed = 0L
      val config = vault.config(Seq(proxy.url, vault.url))
      val tls = new TlsContext(config.tls, () => System.nanoTime())
      val client = new VaultClient(config, tls, () => System.nanoTime() + passed, Thread.sleep(_))
      def ask(): Int = {
        val before = proxy.accepted
        val deadline = new CallDeadline(System.nanoTime() + passed + 10.seconds.toNanos, () => System.nanoTime() + passed)
        client.call(VaultCall.read("/v1/status"), noContext, deadline).flag("ready") shouldBe true
        proxy.accepted - before
      }
      try {
        proxy.cutAnswers = true
        ask() shouldBe 1
        proxy.cutAnswers = false
        ask() shouldBe 0
        passed = 11.seconds.toNanos
        ask() shouldBe 1
      } finally {
        proxy.cutAnswers = false
        client.close()
      }
    }
  }

  "a vault that does not answer, before another that does" should {
    "be passed over within the time of the call, and not be waited for again by each call" in {
      withDriver(vault.config(Seq(proxy.url, vault.url), timeouts = short.copy(call = 6.seconds))) { driver =>
        val id = ed25519(driver)
        // On a connection that is open: a new one would end at the timeout for connecting.
        proxy.stalled = true
        try {
          await(sign(driver, id)) should have length 64
          val before = System.nanoTime()
          (1 to 20).foreach(_ => await(sign(driver, id)) should have length 64)
          (System.nanoTime() - before).nanos should be < 2.seconds
        } finally proxy.stalled = false
      }
    }
  }

  "a vault that does not answer" should {
    "end also the calls that wait for a connection, in time" in {
      withDriver(vault.config(Seq(proxy.url), timeouts = short).copy(connections = 1)) { driver =>
        val id = ed25519(driver)
        proxy.stalled = true
        try {
          val before = System.nanoTime()
          Seq.fill(12)(sign(driver, id)).foreach(failure(_).retryable shouldBe true)
          (System.nanoTime() - before).nanos should be < 6.seconds
        } finally proxy.stalled = false
      }
    }

    "end a call in time" in withDriver(vault.config(Seq(proxy.url), timeouts = short)) { driver =>
      val id = ed25519(driver)
      proxy.stalled = true
      val before = System.nanoTime()
      failure(sign(driver, id)).retryable shouldBe true
      // The timeout is 2 s. Not twice that: closing the connection must not wait for the vault.
      (System.nanoTime() - before).nanos should be < 3.seconds
      await(driver.health) shouldBe a[KmsDriverHealth.Failed]
      proxy.stalled = false
      await(sign(driver, id)) should have length 64
    }

    "not make Canton create a key twice" in withDriver(vault.config(Seq(proxy.url), timeouts = short)) { driver =>
      val before = createdKeys()
      proxy.cutAnswers = true
      failure(driver.generateSigningKeyPair(SigningKeySpec.EcP256, Some("participant1-signing"))(noContext)).retryable shouldBe true
      proxy.cutAnswers = false
      val id = await(driver.generateSigningKeyPair(SigningKeySpec.EcP256, Some("participant1-signing"))(noContext))
      await(driver.keyExistsAndIsActive(id)(noContext))
      createdKeys() shouldBe before + 1
    }
  }

  "connections" should {
    "be kept, and replaced without a failed call when they end" in withDriver(vault.config(Seq(proxy.url))) { driver =>
      val id = ed25519(driver)
      val opened = proxy.accepted
      (1 to 20).foreach(_ => await(sign(driver, id)))
      proxy.accepted shouldBe opened
      proxy.cutAll()
      await(sign(driver, id)) should have length 64
      proxy.accepted should be > opened
    }
  }

  "a frozen vault" should {
    "be Failed, and the calls retryable, until it is unfrozen" in withDriver(vault.config(timeouts = short)) { driver =>
      val id = ed25519(driver)
      vault.adminOk("wrapper-admin", "freeze")
      failure(sign(driver, id)).retryable shouldBe true
      await(driver.health) shouldBe a[KmsDriverHealth.Failed]
      await(driver.health).toString should include("frozen")
      vault.adminOk("wrapper-admin", "unfreeze")
      await(sign(driver, id)) should have length 64
      eventually(await(driver.health) shouldBe KmsDriverHealth.Ok)
    }
  }

  "a denied call" should {
    "be denied once and not repeated" in withDriver(vault.config(principal = "participant2")) { driver =>
      val before = vault.entries("keys.create").count(_.getString("outcome") == "denied")
      failure(driver.generateSymmetricKey(None)(noContext)).retryable shouldBe false
      vault.entries("keys.create").count(_.getString("outcome") == "denied") shouldBe before + 1
    }

    "be not retryable if the vault is not the one of the CA" in {
      val other = new TestVault().start()
      try
        withDriver(vault.config(Seq(other.url))) { driver =>
          failure(driver.generateSymmetricKey(None)(noContext)).retryable shouldBe false
        }
      finally other.close()
    }

    "be not retryable if the client certificate is from another CA" in {
      val other = new TestVault().start()
      try {
        val files = TlsFiles(vault.pki("ca.pem"), ClientIdentity.Pem(other.pki("participant1.pem"), other.pki("participant1.key")))
        withDriver(vault.config().copy(tls = files)) { driver =>
          failure(driver.generateSymmetricKey(None)(noContext)).retryable shouldBe false
        }
      } finally other.close()
    }
  }

  "the client certificate" should {
    "be read again when its files change, and a broken file be reported" in {
      val folder = Files.createTempDirectory("identity")
      def install(name: String): Unit = Seq("pem", "key").foreach { kind =>
        Files.copy(Path.of(vault.pki(s"$name.$kind")), folder.resolve(s"node.$kind"), StandardCopyOption.REPLACE_EXISTING): Unit
      }
      install("participant2")
      val identity = ClientIdentity.Pem(folder.resolve("node.pem").toString, folder.resolve("node.key").toString)
      withDriver(vault.config().copy(tls = TlsFiles(vault.pki("ca.pem"), identity))) { driver =>
        failure(driver.generateSymmetricKey(None)(noContext)).retryable shouldBe false
        install("participant1")
        val id = eventually(await(driver.generateSymmetricKey(None)(noContext)))
        Files.writeString(folder.resolve("node.key"), "no key"): Unit
        eventually(await(driver.health).toString should include("node.key"))
        await(driver.health) shouldBe a[KmsDriverHealth.Degraded]
        await(driver.encryptSymmetric(message, id)(noContext)).length should be > 0
        install("participant1")
        eventually(await(driver.health) shouldBe KmsDriverHealth.Ok)
      }
    }

    Seq("rsa:2048", "ed25519").foreach { algorithm =>
      s"have a key of $algorithm" in {
        val folder = Files.createTempDirectory("identity")
        val (request, certificate) = (folder.resolve("node.csr"), folder.resolve("node.pem"))
        val (key, names) = (folder.resolve("node.key"), folder.resolve("names"))
        Files.writeString(names, "subjectAltName=URI:spiffe://dev.keyvault/participant1\nextendedKeyUsage=clientAuth\n"): Unit
        val commands = Seq(
          Seq("req", "-new", "-newkey", algorithm, "-nodes", "-subj", "/CN=participant1", "-keyout", s"$key", "-out", s"$request"),
          Seq("x509", "-req", "-in", s"$request", "-CA", vault.pki("ca.pem"), "-CAkey", vault.pki("ca.key"), "-set_serial", "77", "-days", "30") ++
            Seq("-extfile", s"$names", "-out", s"$certificate"),
        )
        commands.foreach(command => Process("openssl" +: command).!(ProcessLogger(_ => ())) shouldBe 0)
        val identity = ClientIdentity.Pem(certificate.toString, key.toString)
        withDriver(vault.config().copy(tls = TlsFiles(vault.pki("ca.pem"), identity))) { driver =>
          await(sign(driver, ed25519(driver))) should have length 64
        }
      }
    }

    "be read from PKCS#12" in {
      val folder = Files.createTempDirectory("pkcs12")
      val (store, password) = (folder.resolve("node.p12"), folder.resolve("password"))
      Files.writeString(password, "a password\n"): Unit
      val command = Seq("openssl", "pkcs12", "-export", "-in", vault.pki("participant1.pem"), "-inkey", vault.pki("participant1.key")) ++
        Seq("-out", store.toString, "-passout", "pass:a password")
      command.! shouldBe 0
      val identity = ClientIdentity.Pkcs12(store.toString, password.toString)
      withDriver(vault.config().copy(tls = TlsFiles(vault.pki("ca.pem"), identity))) { driver =>
        await(sign(driver, ed25519(driver))) should have length 64
      }
    }
  }

  "a driver that is closed" should {
    "end the calls that run or wait, at once and without a retry" in {
      val driver = vault.driver(vault.config(Seq(proxy.url), timeouts = Timeouts(call = 60.seconds)).copy(connections = 1))
      val id = ed25519(driver)
      proxy.stalled = true
      try {
        val held = proxy.held
        val calls = Seq.fill(4)(sign(driver, id))
        eventually(proxy.held should be > held)
        val before = System.nanoTime()
        driver.close()
        calls.foreach(failure(_).retryable shouldBe false)
        (System.nanoTime() - before).nanos should be < 5.seconds
      } finally proxy.stalled = false
    }

    "end a call that waits to be repeated" in {
      val driver = vault.driver(vault.config(Seq(nowhere()), timeouts = Timeouts(call = 60.seconds)))
      val call = sign(driver, "1220" + "0" * 64)
      eventually(await(driver.health) shouldBe a[KmsDriverHealth.Failed])
      driver.close()
      failure(call).retryable shouldBe false
    }
  }

  "a closed driver" should {
    "fail calls at once, without a retry" in {
      val driver = vault.driver()
      val id = ed25519(driver)
      driver.close()
      failure(sign(driver, id)).retryable shouldBe false
      driver.close()
    }
  }
}
