//! The text of a policy: one line for each node and each grant, sorted. The log states its digest, so that reviewers can see who had which grants.

use std::collections::BTreeSet;

use super::{Grant, NodeName, NodeScope, Policy};

impl Policy {
    /// The text. Two policies with the same nodes and grants have the same text.
    pub fn text(&self) -> String {
        let nodes = self.nodes().iter().map(|node| format!("node {node}\n"));
        nodes.chain(self.grants().map(line)).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

fn line(grant: &Grant) -> String {
    let Grant { principal, role, nodes } = grant;
    let on = match nodes {
        NodeScope::All => "*".to_owned(),
        NodeScope::Only(names) => names.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" "),
    };
    format!("grant {principal} {role} {on}\n")
}

/// The grants in the text of a policy. `None` if the text is none.
pub fn grants_in(text: &str) -> Option<Vec<Grant>> {
    text.lines().filter(|line| !line.starts_with("node ")).map(grant).collect()
}

fn grant(line: &str) -> Option<Grant> {
    let mut words = line.strip_prefix("grant ")?.split(' ');
    let (principal, role) = (words.next()?.into(), words.next()?.parse().ok()?);
    let names: Vec<&str> = words.collect();
    let nodes = match names.as_slice() {
        [] => return None,
        ["*"] => NodeScope::All,
        names => NodeScope::Only(names.iter().map(|name| name.parse()).collect::<Result<_, _>>().ok()?),
    };
    Some(Grant { principal, role, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Role;

    #[test]
    fn a_text_has_all_grants_in_a_fixed_order() {
        let [a, b]: [NodeName; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        let some = Grant { principal: "dns:x".into(), role: Role::Node, nodes: NodeScope::Only([b.clone(), a.clone()].into()) };
        let all = Grant { principal: "dns:w".into(), role: Role::Auditor, nodes: NodeScope::All };
        let policy = |grants: Vec<Grant>| Policy::new([a.clone(), b.clone()].into(), grants, "r".into()).unwrap();
        let text = policy(vec![some.clone(), all.clone()]).text();
        assert_eq!(text, "grant dns:w auditor *\ngrant dns:x node a b\nnode a\nnode b\n");
        assert_eq!(policy(vec![all.clone(), some.clone(), all.clone()]).text(), text);
        assert_eq!(grants_in(&text), Some(vec![all, some]));
        for wrong in ["grant dns:w auditor\n", "grant dns:w king *\n", "x\n"] {
            assert_eq!(grants_in(wrong), None, "{wrong}");
        }
    }
}
