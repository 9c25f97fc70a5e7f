//! Configurations for services of known habits.

use std::time::Duration;

use super::Config;

impl Config {
    /// The defaults with a buffer, and where it matters a rhythm, for a kind of service.
    ///
    /// | services | events of 1 KiB that fit |
    /// |---|---|
    /// | `datastorage`, `workflowexecution` | 50,000 |
    /// | `gateway`, `signalprocessing`, `remediation-orchestrator` | 30,000 |
    /// | `aianalysis`, `ai-analysis`, `notification`, `notification-controller` | 20,000 |
    /// | `effectivenessmonitor` | 20,000 |
    /// | `kubernaut-agent` | 20,000, in batches of 50, every 500 ms |
    /// | any other | 30,000 |
    ///
    /// The sizes are ten times the busiest hour of each service, and half as much again. They only
    /// matter above the 65,536 events that the default of 64 MiB holds; set
    /// `buffer_bytes` to take less.
    ///
    /// ```
    /// let config = ledgerline::Config::recommended("gateway", "http://127.0.0.1:8080");
    /// assert_eq!(config.buffer_events, 30_000);
    /// ```
    #[must_use]
    pub fn recommended(service: &str, url: impl Into<String>) -> Self {
        let mut config = Self::new(url);
        config.buffer_events = match service {
            "datastorage" | "workflowexecution" => 50_000,
            "aianalysis"
            | "ai-analysis"
            | "notification"
            | "notification-controller"
            | "effectivenessmonitor"
            | "kubernaut-agent" => 20_000,
            _ => 30_000,
        };
        if service == "kubernaut-agent" {
            config.batch_events_max = 50;
            config.flush_interval = Duration::from_millis(500);
        }
        config
    }
}
