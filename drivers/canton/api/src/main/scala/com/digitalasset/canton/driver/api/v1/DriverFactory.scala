// The factory of a driver of version 1, as Canton declares it. For compilation only: Canton provides the real one.
package com.digitalasset.canton.driver.api.v1

import org.slf4j.Logger
import pureconfig.{ConfigReader, ConfigWriter}

import scala.concurrent.ExecutionContext

trait DriverFactory extends com.digitalasset.canton.driver.api.DriverFactory {
  type ConfigType
  type Driver

  override def name: String
  override def version: Int

  def buildInfo: Option[String]
  def configReader: ConfigReader[ConfigType]
  def configWriter(confidential: Boolean): ConfigWriter[ConfigType]
  def create(config: ConfigType, loggerFactory: Class[?] => Logger, executionContext: ExecutionContext): Driver
}
