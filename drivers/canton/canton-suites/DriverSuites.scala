// Canton's own suites for a driver and its factory, run with ours. Compiled by `with-canton` against a class path that the caller provides.
package io.cantonkeyvault.driver

import com.digitalasset.canton.crypto.kms.driver.api.v1.KmsDriver
import com.digitalasset.canton.crypto.kms.driver.testing.v1.{KmsDriverFactoryTest, KmsDriverTest}

final class KeyVaultDriverTest extends KmsDriverTest {
  override protected def newKmsDriver(): KmsDriver =
    new KeyVaultDriverFactory().create(Environment.config, simpleLoggerFactory, parallelExecutionContext)

  "Key Vault driver" must {
    behave like kmsDriver(allowKeyGeneration = true)
  }
}

final class KeyVaultDriverFactoryTest extends KmsDriverFactoryTest {
  override type Factory = KeyVaultDriverFactory
  override protected val factory: KeyVaultDriverFactory = new KeyVaultDriverFactory()
  override protected val config: DriverConfig = Environment.config

  "Key Vault driver factory" must {
    behave like kmsDriverFactory()
  }
}

/** The vault that `with-canton` started. */
private object Environment {
  private def value(name: String): String = sys.env.getOrElse(name, sys.error(s"set $name; with-canton does"))

  def config: DriverConfig = {
    val pki = value("KEYVAULT_TEST_PKI")
    DriverConfig(
      Seq(new java.net.URI(value("KEYVAULT_TEST_URL"))),
      "participant1",
      TlsFiles(s"$pki/ca.pem", ClientIdentity.Pem(s"$pki/participant1.pem", s"$pki/participant1.key")),
    )
  }
}
