// The configuration of the driver (`crypto.kms.config`): its fields, their defaults, and how pureconfig reads and writes them.
package io.cantonkeyvault.driver

import com.typesafe.config.{ConfigFactory, ConfigValue, ConfigValueFactory}
import pureconfig.error.{CannotConvert, ConfigReaderFailures}
import pureconfig.{ConfigCursor, ConfigObjectCursor, ConfigReader, ConfigWriter}

import java.net.URI
import scala.concurrent.duration.*
import scala.jdk.CollectionConverters.*
import scala.util.Try

/** @param urls
  *   The vaults, in the order to try: `https://host:port`. All must share their keys.
  * @param node
  *   The node in the vault that new keys belong to.
  * @param connections
  *   The number of calls at the same time, and of connections to a vault.
  */
final case class DriverConfig(
    urls: Seq[URI],
    node: String,
    tls: TlsFiles,
    timeouts: Timeouts = Timeouts(),
    connections: Int = DriverConfig.DefaultConnections,
)

/** @param trustCollectionFile
  *   The CA certificates of the vault, PEM.
  * @param identity
  *   The client certificate of the node and its private key.
  */
final case class TlsFiles(trustCollectionFile: String, identity: ClientIdentity)

/** The client certificate and its private key. */
sealed trait ClientIdentity extends Product with Serializable

object ClientIdentity {

  /** The chain, leaf first, and an unencrypted PKCS#8 key, both PEM. */
  final case class Pem(certChainFile: String, privateKeyFile: String) extends ClientIdentity

  /** A PKCS#12 file, and a file that contains its password. */
  final case class Pkcs12(keyStoreFile: String, passwordFile: String) extends ClientIdentity
}

/** @param connect
  *   For the TCP connection and the TLS handshake.
  * @param call
  *   For one operation of Canton with all its attempts, except the creation of a key.
  * @param create
  *   For the creation of a key with all its attempts.
  * @param health
  *   For the health check of one vault.
  */
final case class Timeouts(
    connect: FiniteDuration = 2.seconds,
    call: FiniteDuration = 10.seconds,
    create: FiniteDuration = 30.seconds,
    health: FiniteDuration = 3.seconds,
)

object DriverConfig {
  val DefaultConnections: Int = 16

  private type Result[A] = ConfigReader.Result[A]

  val reader: ConfigReader[DriverConfig] = ConfigReader.fromCursor { cursor =>
    for {
      config <- section(cursor, "urls", "node", "tls", "timeouts", "connections")
      urls <- config.atKey("urls").flatMap(_.asListCursor).flatMap(list => all(list.list.map(url)))
      _ <- check(config, urls.nonEmpty, "urls is empty. Name at least one vault: https://host:port")
      node <- config.atKey("node").flatMap(_.asString)
      _ <- check(config, node.nonEmpty, "node is empty. Write the name of the node in the vault")
      tls <- config.atKey("tls").flatMap(tlsFiles)
      timeouts <- optional(config, "timeouts", Timeouts())(readTimeouts)
      connections <- optional(config, "connections", DefaultConnections)(_.asInt)
      _ <- check(config, connections >= 1 && connections <= 1024, "connections is out of range. Write a number from 1 to 1024")
    } yield DriverConfig(urls, node, tls, timeouts, connections)
  }

  val writer: ConfigWriter[DriverConfig] = ConfigWriter.fromFunction { config =>
    val identity = config.tls.identity match {
      case ClientIdentity.Pem(chain, key) => Map("cert-chain-file" -> chain, "private-key-file" -> key)
      case ClientIdentity.Pkcs12(store, password) => Map("key-store-file" -> store, "key-store-password-file" -> password)
    }
    val Timeouts(connect, call, create, health) = config.timeouts
    def millis(duration: FiniteDuration): String = s"${duration.toMillis}ms"
    def map(entries: (String, Any)*): ConfigValue = ConfigValueFactory.fromMap(entries.toMap.asJava)
    map(
      "urls" -> ConfigValueFactory.fromIterable(config.urls.map(_.toString).asJava),
      "node" -> config.node,
      "tls" -> map((identity + ("trust-collection-file" -> config.tls.trustCollectionFile)).toSeq*),
      "timeouts" -> map(
        "connect" -> millis(connect),
        "call" -> millis(call),
        "create" -> millis(create),
        "health" -> millis(health),
      ),
      "connections" -> config.connections,
    )
  }

  private def tlsFiles(cursor: ConfigCursor): Result[TlsFiles] =
    for {
      tls <- section(
        cursor,
        "trust-collection-file",
        "cert-chain-file",
        "private-key-file",
        "key-store-file",
        "key-store-password-file",
      )
      trust <- tls.atKey("trust-collection-file").flatMap(_.asString)
      pem = tls.keys.exists(Set("cert-chain-file", "private-key-file"))
      pkcs12 = tls.keys.exists(Set("key-store-file", "key-store-password-file"))
      _ <- check(tls, pem != pkcs12, "Write either cert-chain-file and private-key-file, or key-store-file and key-store-password-file")
      (first, second) = if (pem) ("cert-chain-file", "private-key-file") else ("key-store-file", "key-store-password-file")
      certificate <- tls.atKey(first).flatMap(_.asString)
      secret <- tls.atKey(second).flatMap(_.asString)
    } yield TlsFiles(trust, if (pem) ClientIdentity.Pem(certificate, secret) else ClientIdentity.Pkcs12(certificate, secret))

  private def readTimeouts(cursor: ConfigCursor): Result[Timeouts] =
    for {
      config <- section(cursor, "connect", "call", "create", "health")
      default = Timeouts()
      connect <- optional(config, "connect", default.connect)(duration)
      call <- optional(config, "call", default.call)(duration)
      create <- optional(config, "create", default.create)(duration)
      health <- optional(config, "health", default.health)(duration)
    } yield Timeouts(connect, call, create, health)

  private def duration(cursor: ConfigCursor): Result[FiniteDuration] =
    cursor.asString.flatMap { text =>
      val millis = Try(ConfigFactory.parseString(s"""value = "$text"""").getDuration("value").toMillis).toOption
      millis.filter(_ >= 1).map(_.millis).toRight(failure(cursor, s"$text is not a positive duration. Write for example 10s or 500ms"))
    }

  private def url(cursor: ConfigCursor): Result[URI] =
    cursor.asString.flatMap { text =>
      val hint = s"$text is not the URL of a vault. Write https://host:port, without a path"
      Try(new URI(text)).toOption
        .filter(uri => uri.getScheme == "https" && uri.getHost != null && Set("", "/")(uri.getPath))
        .filter(uri => uri.getQuery == null && uri.getFragment == null && uri.getUserInfo == null)
        .toRight(failure(cursor, hint))
    }

  /** An object with no other keys than these. A misspelled key is an error, not a default. */
  private def section(cursor: ConfigCursor, known: String*): Result[ConfigObjectCursor] =
    cursor.asObjectCursor.flatMap { config =>
      val unknown = config.keys.filterNot(known.contains).toList.sorted
      val hint = s"${unknown.mkString(", ")}: no such option. The options are ${known.mkString(", ")}"
      check(config, unknown.isEmpty, hint).map(_ => config)
    }

  private def optional[A](config: ConfigObjectCursor, key: String, default: A)(read: ConfigCursor => Result[A]): Result[A] =
    if (config.keys.exists(_ == key)) config.atKey(key).flatMap(read) else Right(default)

  private def all[A](results: Seq[Result[A]]): Result[Seq[A]] =
    results.foldLeft[Result[Seq[A]]](Right(Seq.empty))((sum, next) => sum.flatMap(items => next.map(items :+ _)))

  private def check(cursor: ConfigCursor, holds: Boolean, hint: String): Result[Unit] =
    if (holds) Right(()) else Left(failure(cursor, hint))

  private def failure(cursor: ConfigCursor, hint: String): ConfigReaderFailures =
    ConfigReaderFailures(cursor.failureFor(CannotConvert(cursor.pathElems.reverse.mkString("."), "the driver configuration", hint)))
}
