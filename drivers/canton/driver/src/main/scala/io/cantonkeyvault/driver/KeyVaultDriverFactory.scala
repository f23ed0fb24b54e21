// The entry point of the driver: Canton finds it through the two service files. Its constructor does nothing and cannot fail, because Canton's
// loader instantiates every factory on the class path.
package io.cantonkeyvault.driver

import com.digitalasset.canton.crypto.kms.driver.api.v1.KmsDriverFactory
import org.slf4j.Logger
import pureconfig.{ConfigReader, ConfigWriter}

import java.util.Properties
import scala.concurrent.ExecutionContext
import scala.util.Using

final class KeyVaultDriverFactory extends KmsDriverFactory {
  override type ConfigType = DriverConfig
  override type Driver = KeyVaultDriver

  /** The value of `crypto.kms.name`. */
  override def name: String = "canton-keyvault"

  override def buildInfo: Option[String] = Some(s"${DriverVersion.Product} ${DriverVersion.value}")

  override def configReader: ConfigReader[DriverConfig] = DriverConfig.reader

  /** With `confidential`, secrets are replaced. The configuration holds none: passwords are in files. */
  override def configWriter(confidential: Boolean): ConfigWriter[DriverConfig] = DriverConfig.writer

  /** Reads the certificates. The vault need not be reachable. Calls run on the threads of the driver, not on `executionContext`. */
  override def create(config: DriverConfig, loggerFactory: Class[?] => Logger, executionContext: ExecutionContext): KeyVaultDriver =
    new KeyVaultDriver(config, loggerFactory(classOf[KeyVaultDriver]))
}

/** The version of the driver, which the vault records in each audit entry. */
private[driver] object DriverVersion {
  val Product = "canton-keyvault-driver"

  val value: String = Using(getClass.getResourceAsStream("driver.properties")) { stream =>
    val properties = new Properties()
    properties.load(stream)
    properties.getProperty("version", "unknown")
  }.getOrElse("unknown")
}
