// A TCP proxy in front of a vault that can stall or cut what passes through it.
package io.cantonkeyvault.driver

import java.io.IOException
import java.net.{InetAddress, ServerSocket, Socket, URI}
import java.util.concurrent.ConcurrentLinkedQueue
import scala.jdk.CollectionConverters.*

final class TestProxy(target: Int) extends AutoCloseable {
  private val server = new ServerSocket(0, 256, InetAddress.getByName("127.0.0.1"))
  private val sockets = new ConcurrentLinkedQueue[Socket]()

  /** Whether the answers of the vault are held back. */
  @volatile var stalled: Boolean = false

  /** Whether the connection ends after the request arrived and before its answer is passed on. */
  @volatile var cutAnswers: Boolean = false

  /** The answers held back so far. */
  @volatile var held: Int = 0

  /** The connections accepted so far. */
  @volatile var accepted: Int = 0

  val url: URI = new URI(s"https://127.0.0.1:${server.getLocalPort}")

  daemon {
    while (!server.isClosed) {
      val client = server.accept()
      accepted += 1
      val vault = new Socket("127.0.0.1", target)
      Seq(client, vault).foreach(sockets.add)
      daemon(pass(client, vault, () => ()))
      daemon(pass(vault, client, () => hold(client, vault)))
    }
  }

  /** Ends all connections. */
  def cutAll(): Unit = sockets.asScala.foreach(_.close())

  override def close(): Unit = {
    server.close()
    cutAll()
  }

  private def hold(client: Socket, vault: Socket): Unit = {
    if (cutAnswers) Seq(client, vault).foreach(_.close())
    if (stalled) held += 1
    while (stalled && !client.isClosed) Thread.sleep(10)
  }

  private def pass(from: Socket, to: Socket, before: () => Unit): Unit = {
    val buffer = new Array[Byte](65536)
    val (in, out) = (from.getInputStream, to.getOutputStream)
    Iterator.continually(in.read(buffer)).takeWhile(_ >= 0).foreach { count =>
      before()
      out.write(buffer, 0, count)
    }
  }

  private def daemon(work: => Unit): Unit = {
    val thread = new Thread(() =>
      try work
      catch { case _: IOException => () }
    )
    thread.setDaemon(true)
    thread.start()
  }
}
