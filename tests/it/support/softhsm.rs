//! Real PKCS#11 tokens in software: SoftHSM2, administered with the tool of OpenSC (Debian: softhsm2, opensc).

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use tempfile::TempDir;

/// A folder with tokens, and the configuration of the library that finds them there.
pub(crate) struct Softhsm {
    folder: TempDir,
}

/// The PIN of every token.
pub(crate) const PIN: &str = "3141592653";

impl Softhsm {
    /// The tokens for the library in this test process, which finds only those that are there when it is initialized: [`SHARED_TOKENS`].
    #[expect(unsafe_code, reason = "the library in this process has no other way to be told of its configuration")]
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Softhsm> = OnceLock::new();
        SHARED.get_or_init(|| {
            let tokens = Self::with_tokens(&SHARED_TOKENS);
            // SAFETY: the tests set no other variable, so that no part of the environment is freed while another thread reads it.
            unsafe { std::env::set_var(VARIABLE, tokens.path("softhsm2.conf")) };
            tokens
        })
    }

    /// Tokens with these labels, for a vault of one's own.
    pub(crate) fn with_tokens(labels: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tokens")).unwrap();
        let config = format!("directories.tokendir = {}\nlog.level = ERROR\n", folder.path().join("tokens").display());
        std::fs::write(folder.path().join("softhsm2.conf"), config).unwrap();
        let tokens = Self { folder };
        for label in labels {
            tokens.run("softhsm2-util", &["--init-token", "--free", "--label", label, "--so-pin", "2718281828", "--pin", PIN]);
        }
        tokens.write_pin(PIN);
        tokens
    }

    /// The variable that tells the library of another process of these tokens.
    pub(crate) fn environment(&self) -> (&'static str, String) {
        (VARIABLE, self.path("softhsm2.conf").display().to_string())
    }

    /// The entry of `[[wrapper.pkcs11]]`, without its header.
    pub(crate) fn entry(&self, token: &str) -> String {
        format!("module = '{}'\ntoken = '{token}'\npin_file = '{}'", module().display(), self.path("pin").display())
    }

    /// Writes the file of the PIN.
    pub(crate) fn write_pin(&self, pin: &str) {
        canton_keyvault::files::replace(&self.path("pin"), pin.as_bytes()).unwrap();
    }

    /// Makes a key as `deploy/pkcs11/README.md` says, but for `changes`: AES of 256 bits, sensitive, not extractable.
    pub(crate) fn create_key(&self, token: &str, id: &str, label: &str) {
        self.keygen(token, &["--key-type", "AES:32", "--id", id, "--label", label, "--usage-decrypt", "--private", "--sensitive"]);
    }

    /// Makes a key with these options of `pkcs11-tool --keygen`.
    pub(crate) fn keygen(&self, token: &str, options: &[&str]) {
        self.tool(token, &[&["--keygen"], options].concat());
    }

    /// Deletes a key.
    pub(crate) fn delete_key(&self, token: &str, id: &str) {
        self.tool(token, &["--delete-object", "--type", "secrkey", "--id", id]);
    }

    /// Runs the tool of OpenSC on a token as its user.
    pub(crate) fn tool(&self, token: &str, options: &[&str]) {
        let module = module();
        let login = ["--module", module.to_str().unwrap(), "--token-label", token, "--login", "--pin", PIN];
        self.run("pkcs11-tool", &[&login, options].concat());
    }

    /// The folder of the only token: without it, the token is removed.
    pub(crate) fn token_folder(&self) -> PathBuf {
        let mut folders = std::fs::read_dir(self.path("tokens")).unwrap();
        folders.next().unwrap().unwrap().path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let (name, value) = self.environment();
        let done = Command::new(program).args(arguments).env(name, value).output();
        let done = done.unwrap_or_else(|error| panic!("{program} is missing (Debian: softhsm2, opensc): {error}"));
        assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// The library, where Debian has it.
pub(crate) fn module() -> PathBuf {
    let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"];
    let found = places.iter().map(Path::new).find(|place| place.exists());
    found.unwrap_or_else(|| panic!("SoftHSM2 is missing (Debian: softhsm2): there is none of {places:?}")).to_owned()
}

/// The tokens of [`Softhsm::shared`].
pub(crate) const SHARED_TOKENS: [&str; 3] = ["conformance", "keys", "refused pin"];
const VARIABLE: &str = "SOFTHSM2_CONF";
