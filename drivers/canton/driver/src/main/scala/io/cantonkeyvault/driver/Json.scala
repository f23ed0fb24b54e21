// The few JSON documents of the vault's API: written by hand, read by the configuration library that Canton provides.
package io.cantonkeyvault.driver

import com.typesafe.config.{Config, ConfigException, ConfigFactory, ConfigParseOptions, ConfigSyntax, ConfigUtil}

import java.nio.charset.StandardCharsets.UTF_8
import java.util.Base64
import scala.jdk.CollectionConverters.*
import scala.util.Try

private[driver] object Json {

  /** A value to write: text, text in base64, or a list of texts. */
  def text(value: String): String = ConfigUtil.quoteString(value)
  def bytes(value: Array[Byte]): String = "\"" + Base64.getEncoder.encodeToString(value) + "\""
  def texts(values: Seq[String]): String = values.map(text).mkString("[", ",", "]")

  /** An object of written values. */
  def obj(fields: (String, String)*): Array[Byte] = written(fields*).getBytes(UTF_8)

  /** The same as a value of another object. */
  def written(fields: (String, String)*): String = fields.map { case (name, value) => s"${text(name)}:$value" }.mkString("{", ",", "}")
}

/** A JSON object that was read. A missing or wrong field is an error that names it and not its content. */
private[driver] final class JsonObject(config: Config) {
  def text(field: String): String = get(field, _.getString(field))
  def flag(field: String): Boolean = get(field, _.getBoolean(field))
  def bytes(field: String): Array[Byte] = get(field, config => Base64.getDecoder.decode(config.getString(field)))
  def bytesList(field: String): Seq[Array[Byte]] = get(field, _.getStringList(field).asScala.toSeq.map(Base64.getDecoder.decode(_)))
  def objects(field: String): Seq[JsonObject] = get(field, _.getConfigList(field).asScala.toSeq.map(new JsonObject(_)))
  def optionalText(field: String): Option[String] = Try(config.getString(field)).toOption
  def optionalFlag(field: String): Option[Boolean] = Try(config.getBoolean(field)).toOption

  private def get[A](field: String, read: Config => A): A =
    try read(config)
    catch {
      case _: ConfigException | _: IllegalArgumentException =>
        throw new Unreachable(s"the answer has no valid field $field. Check that the URL is a vault's", sent = true, retryable = false)
    }
}

private[driver] object JsonObject {
  private val options = ConfigParseOptions.defaults().setSyntax(ConfigSyntax.JSON)

  def parse(body: Array[Byte]): Option[JsonObject] =
    Try(new JsonObject(ConfigFactory.parseString(new String(body, UTF_8), options))).toOption
}
