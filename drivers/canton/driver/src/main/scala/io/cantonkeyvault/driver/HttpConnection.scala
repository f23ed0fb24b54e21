// One connection to a vault: HTTP/1.1 over a blocking TLS 1.3 socket, one call at a time. Every read has the deadline of the call, so that a
// vault that answers slowly or never cannot hold a thread. Sizes of headers and bodies are bounded.
package io.cantonkeyvault.driver

import java.io.{BufferedInputStream, ByteArrayOutputStream, EOFException, IOException}
import java.net.{InetSocketAddress, Socket, SocketTimeoutException, URI}
import java.nio.charset.StandardCharsets.{ISO_8859_1, UTF_8}
import javax.net.ssl.{SSLParameters, SSLSocket}

/** A request. The path is of the driver's own making or a key id that was checked. */
private[driver] final case class HttpRequest(method: String, path: String, headers: Seq[(String, String)], body: Array[Byte])

private[driver] final case class HttpResponse(status: Int, body: Array[Byte], keepAlive: Boolean)

/** A point in time after which a call ends. */
private[driver] final class CallDeadline(at: Long, nanoTime: () => Long) {
  def remainingMillis: Long = (at - nanoTime()) / 1000000L

  /** The first of `parts` equal parts of the remaining time. */
  def share(parts: Int): CallDeadline = {
    val now = nanoTime()
    new CallDeadline(now + (at - now) / parts.max(1).toLong, nanoTime)
  }

  /** At least one millisecond, because zero means no timeout to a socket. */
  def socketTimeout: Int = {
    val remaining = remainingMillis
    if (remaining <= 0) throw new SocketTimeoutException("no answer in time")
    remaining.min(Int.MaxValue.toLong).toInt
  }
}

private[driver] final class HttpConnection private (socket: SSLSocket, plain: Socket, host: String, val generation: Long, val openedAt: Long) {
  import HttpConnection.*

  private val in = new BufferedInputStream(socket.getInputStream, 8192)
  private val out = socket.getOutputStream

  /** Whether bytes of the answer to the last request arrived. */
  @volatile private var answered = false
  def hasAnswered: Boolean = answered

  /** @throws java.io.IOException
    *   if the connection fails, the deadline passes, or the answer is not HTTP/1.1 within the limits
    */
  def exchange(request: HttpRequest, deadline: CallDeadline): HttpResponse = {
    answered = false
    socket.setSoTimeout(deadline.socketTimeout)
    out.write(encode(request))
    out.flush()
    val status = statusOf(line(deadline))
    val headers = readHeaders(deadline)
    def header(name: String): Option[String] = headers.collectFirst { case (`name`, value) => value }
    val body = header("transfer-encoding") match {
      case Some(coding) if coding.equalsIgnoreCase("chunked") => readChunks(deadline)
      case Some(_) => throw new IOException("an answer in an unknown transfer encoding")
      case None => readExactly(header("content-length").fold(0)(length), deadline)
    }
    HttpResponse(status, body, keepAlive = !header("connection").exists(_.equalsIgnoreCase("close")))
  }

  /** Waits a moment for an alert of the vault. In TLS 1.3 the vault rejects a client certificate after the handshake of the client has ended. A
    * request that is written then makes the system discard the alert, and the rejection looks like a broken connection.
    *
    * @throws java.io.IOException
    *   if the vault rejects the certificate or ends the connection
    */
  private def awaitAlert(): Unit = {
    socket.setSoTimeout(AlertMillis)
    try {
      if (in.read() < 0) throw new EOFException("the connection ended before the answer") else throw notHttp
    } catch { case _: SocketTimeoutException => () }
  }

  /** Ends TLS, then the connection. For a connection that works. */
  def close(): Unit =
    try {
      // Java waits this long for the end of TLS from the vault.
      socket.setSoTimeout(1)
      socket.close()
    } catch { case _: IOException => abort() }

  /** Ends the connection at once, also while an exchange runs. Ending TLS would wait for a vault that does not answer. */
  def abort(): Unit =
    try plain.close()
    catch { case _: IOException => () }

  private def encode(request: HttpRequest): Array[Byte] = {
    val head = new StringBuilder(256)
    head.append(request.method).append(' ').append(request.path).append(" HTTP/1.1\r\nhost: ").append(host).append("\r\n")
    request.headers.foreach { case (name, value) => head.append(name).append(": ").append(value).append("\r\n") }
    if (request.body.nonEmpty) head.append("content-type: application/json\r\n")
    head.append("content-length: ").append(request.body.length).append("\r\n\r\n")
    head.toString.getBytes(UTF_8) ++ request.body
  }

  private def statusOf(line: String): Int =
    if (line.startsWith("HTTP/1.1 ") && line.length >= 12) line.substring(9, 12).toIntOption.getOrElse(throw notHttp) else throw notHttp

  private def readHeaders(deadline: CallDeadline): List[(String, String)] =
    Iterator.continually(line(deadline)).takeWhile(_.nonEmpty).take(MaxHeaders + 1).foldLeft(List.empty[(String, String)]) { (headers, line) =>
      if (headers.length >= MaxHeaders) throw new IOException("too many headers in an answer")
      val colon = line.indexOf(':')
      if (colon < 1) throw notHttp
      (line.substring(0, colon).toLowerCase -> line.substring(colon + 1).trim) :: headers
    }

  private def readChunks(deadline: CallDeadline): Array[Byte] = {
    val body = new ByteArrayOutputStream()
    var size = chunkSize(line(deadline))
    while (size > 0) {
      if (body.size + size > MaxBody) throw new IOException("an answer is too long")
      body.write(readExactly(size, deadline))
      if (line(deadline).nonEmpty) throw notHttp
      size = chunkSize(line(deadline))
    }
    readHeaders(deadline)
    body.toByteArray
  }

  private def chunkSize(line: String): Int =
    try Integer.parseInt(line.takeWhile(_ != ';').trim, 16).ensuring(_ >= 0)
    catch { case _: NumberFormatException | _: AssertionError => throw notHttp }

  private def length(text: String): Int =
    text.toIntOption.filter(length => length >= 0 && length <= MaxBody).getOrElse(throw new IOException("an answer is too long"))

  private def readExactly(size: Int, deadline: CallDeadline): Array[Byte] = {
    if (size < 0 || size > MaxBody) throw new IOException("an answer is too long")
    val bytes = new Array[Byte](size)
    var read = 0
    while (read < size) {
      socket.setSoTimeout(deadline.socketTimeout)
      val count = in.read(bytes, read, size - read)
      if (count < 0) throw new EOFException("the connection ended within an answer")
      read += count
    }
    bytes
  }

  private def line(deadline: CallDeadline): String = {
    val line = new ByteArrayOutputStream(64)
    var byte = next(deadline)
    while (byte != '\n') {
      if (line.size >= MaxLine) throw new IOException("a header of an answer is too long")
      line.write(byte)
      byte = next(deadline)
    }
    line.toString(ISO_8859_1).stripSuffix("\r")
  }

  private def next(deadline: CallDeadline): Int = {
    if (in.available() == 0) socket.setSoTimeout(deadline.socketTimeout)
    val byte = in.read()
    if (byte < 0) throw new EOFException("the connection ended before the answer")
    answered = true
    byte
  }
}

private[driver] object HttpConnection {
  private val AlertMillis = 50
  private val MaxHeaders = 64
  private val MaxLine = 8192
  private val MaxBody = 1024 * 1024

  private def notHttp: IOException = new IOException("the answer is not HTTP/1.1. Check that the URL is a vault's")

  /** Connects and shakes hands. The name or address in the URL must be in the certificate of the vault.
    *
    * @param expectAlert
    *   whether to wait a moment for a rejection of the client certificate
    * @throws java.io.IOException
    *   if the vault cannot be reached in time or its certificate is not accepted
    */
  def open(url: URI, tls: LoadedTls, deadline: CallDeadline, now: Long, expectAlert: Boolean): HttpConnection = {
    val host = url.getHost.stripPrefix("[").stripSuffix("]")
    val port = if (url.getPort < 0) 443 else url.getPort
    val plain = new Socket()
    try {
      plain.setTcpNoDelay(true)
      plain.connect(new InetSocketAddress(host, port), deadline.socketTimeout)
      plain.setSoTimeout(deadline.socketTimeout)
      val socket = tls.factory.createSocket(plain, host, port, true) match {
        case socket: SSLSocket => socket
        case _ => throw new IOException("no TLS socket")
      }
      val parameters: SSLParameters = socket.getSSLParameters
      parameters.setEndpointIdentificationAlgorithm("HTTPS")
      parameters.setProtocols(Array("TLSv1.3"))
      parameters.setApplicationProtocols(Array("http/1.1"))
      socket.setSSLParameters(parameters)
      socket.startHandshake()
      val connection = new HttpConnection(socket, plain, s"${url.getHost}:$port", tls.generation, now)
      if (expectAlert) connection.awaitAlert()
      connection
    } catch {
      case error: IOException =>
        plain.close()
        throw error
    }
  }
}
