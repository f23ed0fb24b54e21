// The markers of KMS drivers of every version, as Canton declares them. For compilation only: Canton provides the real ones.
package com.digitalasset.canton.crypto.kms.driver.api

trait KmsDriver

trait KmsDriverFactory extends com.digitalasset.canton.driver.api.DriverFactory
