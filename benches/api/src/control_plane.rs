//! etcd and kube-apiserver, as the environment names them (ETCD, KUBE_APISERVER), in a namespace of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kit::netns::{Namespace, inside};
use kube::{Client, Config};

use crate::Failure;
use crate::process::Process;

/// Where agents find the server.
pub const ADDRESS: &str = "172.20.255.254";
pub const PORT: &str = "6443";

/// Who is who: the bench, whom no limit concerns, and the agents' ServiceAccount.
const TOKENS: &str = "\
bench-token,bench,bench,\"system:masters\"
agent-token,system:serviceaccount:kube-system:ferrule,ferrule,\"system:serviceaccounts,system:serviceaccounts:kube-system\"
";

/// The two, and the place that they are in.
pub struct ControlPlane {
    server: Process,
    etcd: Process,
    /// Its end of the agents' links is a bridge.
    pub netns: Namespace,
}

/// CPU of both, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    pub server: f64,
    pub etcd: f64,
}

impl ControlPlane {
    /// Starts both, waits for the server, and gives agents their secrets where they look for them.
    pub fn start(work: &Path) -> Result<Self, Failure> {
        let program =
            |name: &str| std::env::var(name).map_err(|_| format!("the environment names no {name}"));
        let (etcd, server) = (program("ETCD")?, program("KUBE_APISERVER")?);
        let netns = Namespace::new("control");
        netns.ip_batch(&format!(
            "link set lo up\nlink add br0 type bridge\nlink set br0 up\naddress add {ADDRESS}/16 dev br0\n"
        ));
        let at = |name: &str| work.join(name);
        let log = at("etcd.log");
        let mut command = netns.command(etcd);
        command.args(["--unsafe-no-fsync", "--quota-backend-bytes=2147483648", "--log-level=error"]);
        // As kubeadm does it.
        command.arg("--experimental-watch-progress-notify-interval=5s");
        let etcd = Process::start(command.arg("--data-dir").arg(at("etcd")), &log)?;
        kit::process::output("openssl", &["genrsa", "-out", &text(&at("sa.key")), "2048"])?;
        fs::write(at("tokens.csv"), TOKENS)?;
        let log = at("kube-apiserver.log");
        let mut command = netns.command(server);
        command.args(["--etcd-servers=http://127.0.0.1:2379", "--authorization-mode=AlwaysAllow"]);
        command.args(["--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://bench"]);
        command.arg(format!("--secure-port={PORT}")).arg(format!("--advertise-address={ADDRESS}"));
        for (option, file) in [
            ("--cert-dir", "pki"),
            ("--token-auth-file", "tokens.csv"),
            ("--service-account-key-file", "sa.key"),
            ("--service-account-signing-key-file", "sa.key"),
        ] {
            command.arg(option).arg(at(file));
        }
        let mut control = Self { server: Process::start(&mut command, &log)?, etcd, netns };
        control.wait(&log)?;
        let secrets = Path::new("/run/secrets/kubernetes.io/serviceaccount");
        fs::create_dir_all(secrets)?;
        fs::copy(at("pki/apiserver.crt"), secrets.join("ca.crt"))?;
        fs::write(secrets.join("token"), "agent-token")?;
        fs::write(secrets.join("namespace"), "kube-system")?;
        Ok(control)
    }

    fn wait(&mut self, log: &Path) -> Result<(), Failure> {
        let begin = Instant::now();
        while self.get("/readyz").is_err() {
            self.server.must_run(log)?;
            if begin.elapsed() > Duration::from_secs(90) {
                return Err(format!("kube-apiserver is not ready, see {}", log.display()).into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// What the server answers to a GET.
    pub fn get(&self, path: &str) -> Result<String, Failure> {
        self.run(async |client| {
            let request = hyper::http::Request::get(path).body(Vec::new())?;
            Ok(client.request_text(request).await?)
        })
    }

    /// Runs something with a client, in the server's namespace.
    pub fn run<T: Send>(
        &self,
        work: impl AsyncFnOnce(Client) -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        within(self.netns.path(), work)
    }

    /// CPU that both have used so far.
    pub fn spent(&self) -> Result<Spent, Failure> {
        Ok(Spent { server: self.server.spent()?, etcd: self.etcd.spent()? })
    }

    /// CPU that both use within a time.
    pub fn spent_within(&self, time: Duration) -> Result<Spent, Failure> {
        let before = self.spent()?;
        std::thread::sleep(time);
        Ok(self.spent()? - before)
    }

    /// The most memory that the server ever had, in KiB.
    pub fn peak_memory(&self) -> Result<u64, Failure> {
        self.server.peak_memory()
    }

    /// Stops the server as a debugger would, or has it go on.
    pub fn freeze(&self, is_frozen: bool) -> Result<(), Failure> {
        self.server.signal(if is_frozen { "STOP" } else { "CONT" })
    }
}

impl std::ops::Sub for Spent {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { server: self.server - other.server, etcd: self.etcd - other.etcd }
    }
}

/// Runs something with a client, in the server's namespace.
pub fn within<T: Send>(
    netns: &Path,
    work: impl AsyncFnOnce(Client) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    inside(PathBuf::from(netns), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut config = Config::new(format!("https://127.0.0.1:{PORT}").parse()?);
            // The server is our own, and nobody else is in its namespace.
            config.accept_invalid_certs = true;
            config.auth_info.token = Some("bench-token".to_owned().into());
            work(Client::try_from(config)?).await
        })
    })
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
