//! Every source file that a document names exists.

use std::{fs, path::Path};

#[test]
fn every_file_that_a_document_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "SECURITY.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        for file in text.split('`').skip(1).step_by(2).filter(|file| is_source_file(file)) {
            // In the recipes, `foo` and `verb` are placeholders.
            if file.contains("foo") || file.contains("verb") {
                continue;
            }
            let found = [root.join("src").join(file), root.join(file)].iter().any(|path| path.is_file());
            assert!(found, "{document} names {file}");
            named += 1;
        }
    }
    assert!(named > 40, "{named} files were found");
}

fn is_source_file(text: &str) -> bool {
    Path::new(text).extension().is_some_and(|extension| extension == "rs") && !text.contains(char::is_whitespace)
}
