// Signatures that wait for the same key share calls: each is over its own message, with its own entry and trace, and fails alone.
package io.cantonkeyvault.driver

import com.digitalasset.canton.crypto.kms.driver.api.v1.*
import com.typesafe.config.Config
import io.cantonkeyvault.driver.TestVault.{await, eventually, noContext, outcome}
import io.opentelemetry.api.trace.{Span, SpanContext, TraceFlags, TraceState}
import io.opentelemetry.context.Context
import org.scalatest.BeforeAndAfterAll
import org.scalatest.matchers.should.Matchers
import org.scalatest.wordspec.AnyWordSpec

import java.security.spec.X509EncodedKeySpec
import java.security.{KeyFactory, Signature}
import scala.concurrent.duration.*
import scala.util.{Failure, Success}

final class BatchSuite extends AnyWordSpec with Matchers with BeforeAndAfterAll {
  private val vault = new TestVault().start()
  private val proxy = new TestProxy(vault.port)

  override def afterAll(): Unit = {
    proxy.close()
    vault.close()
  }

  private def withDriver[A](config: DriverConfig = vault.config(Seq(proxy.url)))(test: KeyVaultDriver => A): A = {
    val driver = vault.driver(config)
    try test(driver)
    finally driver.close()
  }

  private def ed25519(driver: KeyVaultDriver): String = await(driver.generateSigningKeyPair(SigningKeySpec.EcCurve25519, None)(noContext))

  private def entries(keyId: String): Seq[Config] =
    vault.entries("keys.sign").filter(entry => entry.hasPath("key_id") && entry.getString("key_id") == keyId && entry.getString("outcome") == "ok")

  private def requests(entries: Seq[Config]): Int = entries.map(_.getString("request_id")).distinct.size

  private def trace(number: Int): Context = {
    val span = SpanContext.create(f"4bf92f3577b34da6a3ce929d0e0e$number%04x", "00f067aa0ba902b7", TraceFlags.getSampled, TraceState.getDefault)
    Context.root().`with`(Span.wrap(span))
  }

  private def verifies(publicKey: Array[Byte], message: Array[Byte], signature: Array[Byte]): Boolean = {
    val verifier = Signature.getInstance("Ed25519")
    verifier.initVerify(KeyFactory.getInstance("Ed25519").generatePublic(new X509EncodedKeySpec(publicKey)))
    verifier.update(message)
    verifier.verify(signature)
  }

  "signatures of one key" should {
    "share calls while others are in flight, each with its own message, entry and trace" in withDriver() { driver =>
      val id = ed25519(driver)
      val publicKey = await(driver.getPublicKey(id)(noContext)).key
      proxy.stalled = true
      val messages = (1 to 100).map(number => s"message $number".getBytes)
      val signatures = messages.zipWithIndex.map { case (message, number) => driver.sign(message, id, SigningAlgoSpec.Ed25519)(trace(number)) }
      proxy.stalled = false
      messages.zip(signatures).foreach { case (message, signature) => verifies(publicKey, message, await(signature)) shouldBe true }
      val logged = entries(id)
      logged should have size 100
      logged.map(_.getString("trace_id")).toSet shouldBe (0 until 100).map(number => f"4bf92f3577b34da6a3ce929d0e0e$number%04x").toSet
      // Two calls with one message each are in flight, and 98 messages need two more.
      requests(logged) should be <= 4
    }

    "go at once where nothing is in flight" in withDriver() { driver =>
      val id = ed25519(driver)
      (1 to 5).foreach(_ => await(driver.sign(Array[Byte](1), id, SigningAlgoSpec.Ed25519)(noContext)) should have length 64)
      requests(entries(id)) shouldBe 5
    }

    "fail alone where the vault refuses one" in withDriver() { driver =>
      val id = ed25519(driver)
      proxy.stalled = true
      val long = new Array[Byte](4097)
      val signatures = (1 to 10).map(number => driver.sign(if (number == 6) long else Array[Byte](1), id, SigningAlgoSpec.Ed25519)(noContext))
      proxy.stalled = false
      signatures.map(outcome(_)).zipWithIndex.foreach {
        case (Success(signature), number) if number != 5 => signature should have length 64
        case (Failure(exception: KmsDriverException), 5) =>
          exception.retryable shouldBe false
          exception.exception.getMessage should include("too_large")
        case (other, number) => fail(s"$number: $other")
      }
    }

    "not exceed the size of a call" in withDriver() { driver =>
      val id = ed25519(driver)
      proxy.stalled = true
      val signatures = (1 to 40).map(_ => driver.sign(new Array[Byte](4096), id, SigningAlgoSpec.Ed25519)(trace(1)))
      proxy.stalled = false
      signatures.foreach(await(_) should have length 64)
      requests(entries(id)) should be <= 8
    }
  }

  "signatures that wait" should {
    "end in time" in withDriver(vault.config(Seq(proxy.url), timeouts = Timeouts(connect = 1.second, call = 2.seconds)).copy(connections = 1)) { driver =>
      val id = ed25519(driver)
      proxy.stalled = true
      try {
        val before = System.nanoTime()
        Seq.fill(100)(driver.sign(Array[Byte](1), id, SigningAlgoSpec.Ed25519)(noContext)).foreach { signature =>
          outcome(signature) should matchPattern { case Failure(exception: KmsDriverException) if exception.retryable => }
        }
        (System.nanoTime() - before).nanos should be < 6.seconds
      } finally proxy.stalled = false
      eventually(await(driver.sign(Array[Byte](1), id, SigningAlgoSpec.Ed25519)(noContext)) should have length 64)
    }

    "fail at once when the driver closes" in {
      val driver = vault.driver(vault.config(Seq(proxy.url)))
      val id = ed25519(driver)
      proxy.stalled = true
      val signatures = Seq.fill(100)(driver.sign(Array[Byte](1), id, SigningAlgoSpec.Ed25519)(noContext))
      val before = System.nanoTime()
      driver.close()
      try signatures.foreach(outcome(_).isFailure shouldBe true)
      finally proxy.stalled = false
      (System.nanoTime() - before).nanos should be < 5.seconds
    }
  }
}
