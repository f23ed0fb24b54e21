// The factory of any Canton driver, as Canton declares it. For compilation only: Canton provides the real one.
package com.digitalasset.canton.driver.api

trait DriverFactory {
  def name: String
  def version: Int
}
