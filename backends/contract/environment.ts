/** What every part is handed instead of reaching for globals: time, chance, logs and meters. */

export interface Clock {
  /** Wall clock, milliseconds since the Unix epoch. For records shown to people only. */
  nowMs(): number;
  /** Monotonic milliseconds. For durations and deadlines. */
  monotonicMs(): number;
  /** Resolves after `ms`, or at once when `signal` aborts (never rejects). Does not keep the process alive. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export interface Random {
  /** Cryptographically strong bytes. */
  bytes(length: number): Uint8Array;
}

/** Structured log: static message, facts as fields (`request_id`, `repo`, `component`, ...). Shaped like pino. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  child(fields: object): Logger;
}

/** Closed label values only; never a repository, user or ref name. */
export type Labels = Readonly<Record<string, string>>;

export type CounterName =
  | 'requests' // labels: transport, service, outcome
  | 'request_bytes' // labels: transport, service, direction (in | out)
  | 'pushes' // labels: outcome (ok | partial | refused | cancelled | error)
  | 'rule_refusals' // labels: demand (push | no-force-push | ..., hooks/rules/violation.ts)
  | 'hook_runs' // labels: stage, outcome (ok | declined | killed | too-long | ... | failed)
  | 'webhook_attempts' // labels: outcome (delivered | status | redirect | timeout | ..., hooks/webhooks/delivery.ts)
  | 'webhook_deliveries' // labels: outcome (delivered | failed | dropped)
  | 'quota_pushes' // labels: outcome (ok | warned | refused), of pushes that a quota concerns
  | 'limit_refusals' // labels: transport, limit (requests | fetches | pushes | rate-principal | rate-address | rate-repository)
  | 'shared_fetches' // labels: outcome (started | joined)
  | 'authentications' // labels: transport, outcome
  | 'recalled_reads' // labels: transport; served without the coordinator
  | 'git_spawns' // labels: command
  | 'packs_indexed' // labels: engine (libgit2 | git), outcome
  | 'quorum_failures' // labels: consistency (eventual | quorum | strong)
  | 'replica_set_steps' // labels: step (add-learner | fill | promote | demote | remove-voter | drop-learner | declare)
  | 'node_calls' // labels: call, outcome (ok | an error code)
  | 'copies_verified' // labels: outcome (sound | damaged | unknown)
  | 'maintenance_runs'; // labels: outcome

export type HistogramName =
  | 'request_seconds' // labels: transport, service
  | 'push_step_seconds' // labels: step (upload | lock | prepare | commit | apply)
  | 'lock_wait_seconds' // labels: scope (refs | repository | global)
  | 'hook_seconds' // labels: stage (pre-receive | update | post-receive)
  | 'webhook_seconds' // labels: outcome, as webhook_attempts
  | 'git_seconds' // labels: command
  | 'commit_batch_size';

export type GaugeName =
  | 'connections' // labels: transport
  | 'coordinator_lost_seconds'
  | 'locks_held' // labels: scope
  | 'locks_waiting' // labels: scope
  | 'quarantines'
  | 'repositories_lagging'
  | 'copies_behind'
  | 'repositories_without_majority'
  | 'replica_lag_generations'
  | 'replica_lag_seconds'
  | 'certificate_not_after'
  | 'read_sessions'
  | 'storage_nodes' // labels: state (answering | silent)
  | 'disk_trouble' // labels: kind (hangs | takes-nothing)
  | 'pack_memory' // labels: transport
  | 'queue_depth'; // labels: queue (spawn | libgit2 | maintenance | outbox | audit | webhooks | http-requests | http-fetches | ...)

/** Metrics, injected. Names are closed; the registry (`server/observe/metrics.ts`) says units and help. */
export interface Meter {
  count(name: CounterName, labels?: Labels, by?: number): void;
  observe(name: HistogramName, value: number, labels?: Labels): void;
  /** Registers a function that is read at each scrape; registering the same name and labels again replaces it. */
  gauge(name: GaugeName, labels: Labels, read: () => number): void;
}
