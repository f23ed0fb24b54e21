// The names that Canton gives to keys, and the usages that follow from them. The vault pins the usages to the key.
package io.cantonkeyvault.driver

private[driver] object KeyNames {

  /** Maximum length of a name in the vault, in characters. */
  private val MaxLength = 300

  private val usagesBySuffix: Seq[(String, Seq[String])] = Seq(
    "-namespace" -> Seq("namespace"),
    "-sequencer-auth" -> Seq("sequencer-authentication", "proof-of-ownership"),
    "-signing" -> Seq("protocol", "proof-of-ownership"),
  )

  /** The name for the vault: control characters are replaced, a name that is too long is cut, and an empty name is no name. */
  def forVault(name: Option[String]): Option[String] =
    name
      .map(_.map(character => if (character.isControl) ' ' else character).trim)
      .map(text => text.take(text.offsetByCodePoints(0, text.codePointCount(0, text.length).min(MaxLength))).trim)
      .filter(_.nonEmpty)

  /** The usages of a key of this name: `<node>-namespace`, also after `rotate_node_keys`, which appends `-rotated-<time>`. `None` for a name that
    * neither Canton nor Splice forms.
    */
  def usages(name: Option[String]): Option[Seq[String]] = name.flatMap { text =>
    val original = text.split("-rotated-", 2).headOption.getOrElse(text)
    // Splice (`NodeInitializer.scala`) names this key without the node. Its key `signing` has all usages, which no name tells.
    if (original == "namespace") Some(Seq("namespace"))
    else usagesBySuffix.collectFirst { case (suffix, usages) if original.endsWith(suffix) => usages }
  }
}
