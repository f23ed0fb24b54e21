// Our declarations have the binary signatures of Canton's own classes, so that a driver that is compiled with them links against the real ones.
package io.cantonkeyvault.api

import org.scalatest.matchers.should.Matchers
import org.scalatest.wordspec.AnyWordSpec

import java.nio.file.{Files, Path}
import java.util.spi.ToolProvider
import scala.io.Source
import scala.jdk.CollectionConverters.*
import scala.util.Using

final class DeclarationsSuite extends AnyWordSpec with Matchers {

  /** Each class with its members that are not private, each with its descriptor. */
  private type Classes = Map[String, Set[String]]

  private def classes(lines: Seq[String])(member: (String, Option[String]) => Option[String]): Classes = {
    val next = lines.drop(1).map(Option(_)) :+ None
    val (result, _) = lines.zip(next).foldLeft((Map.empty[String, Set[String]], "")) { case ((found, current), (line, following)) =>
      if (line.endsWith("{")) (found + (line -> Set.empty[String]), line)
      else member(line, following).fold((found, current))(text => (found.updated(current, found.getOrElse(current, Set.empty) + text), current))
    }
    result
  }

  "the declarations" should {
    "be those of Canton's KMS driver API" in {
      val file = Using.resource(Source.fromResource("kms-driver-api.javap.txt"))(_.getLines().filterNot(_.startsWith("#")).toList)
      val theirs = classes(file)((line, _) => Option.when(line.startsWith("  "))(line.trim))

      val compiled = Files.walk(Path.of("target/classes")).iterator().asScala.map(_.toString).filter(_.endsWith(".class")).toSeq
      val output = new java.io.StringWriter()
      val javap = ToolProvider.findFirst("javap").orElseThrow(() => new IllegalStateException("the JDK has no javap"))
      val writer = new java.io.PrintWriter(output)
      javap.run(writer, writer, (Seq("-p", "-s") ++ compiled)*) shouldBe 0
      val ours = classes(output.toString.linesIterator.toList) { (line, following) =>
        val descriptor = following.map(_.trim).filter(_.startsWith("descriptor: ")).map(_.stripPrefix("descriptor: "))
        descriptor.filterNot(_ => line.trim.startsWith("private ")).map(text => s"${line.trim}  $text")
      }

      theirs.keySet should have size 39
      ours shouldBe theirs
    }
  }
}
