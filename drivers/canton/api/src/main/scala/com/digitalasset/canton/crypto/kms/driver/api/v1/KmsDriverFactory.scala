// The factory of KMS drivers of version 1, as Canton declares it. For compilation only: Canton provides the real one.
package com.digitalasset.canton.crypto.kms.driver.api.v1

import com.digitalasset.canton.driver.api.v1.DriverFactory

trait KmsDriverFactory extends com.digitalasset.canton.crypto.kms.driver.api.KmsDriverFactory with DriverFactory {
  override val version: Int = 1
  override type Driver <: KmsDriver
}
