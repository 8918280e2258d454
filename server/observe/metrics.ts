import assert from 'node:assert/strict';
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client';
import type {
  CounterName,
  GaugeName,
  HistogramName,
  Labels,
  Logger,
  Meter,
} from '../../backends/contract/environment.js';

interface MetricDefinition {
  /** Exposed name: unit and suffix as Prometheus' naming conventions want them. */
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
}

interface HistogramDefinition extends MetricDefinition {
  readonly buckets: readonly number[];
}

/** Tiny ls-refs take a millisecond, a clone of gigabytes takes half an hour. */
const requestBuckets = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1800,
];
const stepBuckets = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600,
];

const counters: Record<CounterName, MetricDefinition> = {
  requests: {
    name: 'quorate_requests_total',
    help: 'Git requests that ended, by outcome.',
    labels: ['transport', 'service', 'outcome'],
  },
  request_bytes: {
    name: 'quorate_request_bytes_total',
    help: 'Bytes of Git requests read from (in) and written to (out) clients.',
    labels: ['transport', 'service', 'direction'],
  },
  pushes: {
    name: 'quorate_pushes_total',
    help: 'Pushes that ended, by outcome (ok, partial, refused, cancelled: the client left, error).',
    labels: ['outcome'],
  },
  rule_refusals: {
    name: 'quorate_rule_refusals_total',
    help: 'Refs refused by a branch rule, by what the rule demands.',
    labels: ['demand'],
  },
  hook_runs: {
    name: 'quorate_hook_runs_total',
    help: 'Hooks of administrators that ran, by stage and how they ended.',
    labels: ['stage', 'outcome'],
  },
  recalled_reads: {
    name: 'quorate_recalled_reads_total',
    help: 'Requests to read that were served from what was read before, while the coordinator could not be reached.',
    labels: ['transport'],
  },
  webhook_attempts: {
    name: 'quorate_webhook_attempts_total',
    help: 'Attempts to send a webhook delivery, by how they ended.',
    labels: ['outcome'],
  },
  webhook_deliveries: {
    name: 'quorate_webhook_deliveries_total',
    help: 'Webhook deliveries that ended: delivered, failed (given up), dropped (too many waited).',
    labels: ['outcome'],
  },
  quota_pushes: {
    name: 'quorate_quota_pushes_total',
    help: 'Pushes that a quota concerned: ok, warned (the quota is nearly used up), refused.',
    labels: ['outcome'],
  },
  limit_refusals: {
    name: 'quorate_limit_refusals_total',
    help: 'Requests refused by a rate, or because their queue was full or too slow.',
    labels: ['transport', 'limit'],
  },
  shared_fetches: {
    name: 'quorate_shared_fetches_total',
    help: 'Fetches that needed a git: started one, or joined that of another fetch that asked the same.',
    labels: ['outcome'],
  },
  authentications: {
    name: 'quorate_authentications_total',
    help: 'Attempts to authenticate, by outcome.',
    labels: ['transport', 'outcome'],
  },
  git_spawns: {
    name: 'quorate_git_spawns_total',
    help: 'git processes started, by git command.',
    labels: ['command'],
  },
  packs_indexed: {
    name: 'quorate_packs_indexed_total',
    help: 'Received packs indexed, by engine (libgit2 or git) and outcome.',
    labels: ['engine', 'outcome'],
  },
  node_calls: {
    name: 'quorate_node_calls_total',
    help: 'Calls of other members to this storage node, by call and outcome.',
    labels: ['call', 'outcome'],
  },
  quorum_failures: {
    name: 'quorate_quorum_failures_total',
    help: 'Pushes that were refused since too few storage nodes could take them, by the consistency that was asked for.',
    labels: ['consistency'],
  },
  replica_set_steps: {
    name: 'quorate_replica_set_steps_total',
    help: 'Steps by which replica sets were kept up: copies made, filled, replaced, declared.',
    labels: ['step'],
  },
  copies_verified: {
    name: 'quorate_copies_verified_total',
    help: 'Copies of repositories that were read from the disk of this process, by outcome (sound, damaged; unknown: the machine kept it from being read).',
    labels: ['outcome'],
  },
  maintenance_runs: {
    name: 'quorate_maintenance_runs_total',
    help: 'Repository maintenance runs, by outcome.',
    labels: ['outcome'],
  },
};

const histograms: Record<HistogramName, HistogramDefinition> = {
  request_seconds: {
    name: 'quorate_request_duration_seconds',
    help: 'Time from the first byte of a Git request to the end of its answer.',
    labels: ['transport', 'service'],
    buckets: requestBuckets,
  },
  push_step_seconds: {
    name: 'quorate_push_step_duration_seconds',
    help: 'Time that pushes spent in each step (upload, lock, prepare, commit, apply).',
    labels: ['step'],
    buckets: stepBuckets,
  },
  lock_wait_seconds: {
    name: 'quorate_lock_wait_seconds',
    help: 'Time waited for locks, by scope (refs, repository, global).',
    labels: ['scope'],
    buckets: stepBuckets,
  },
  hook_seconds: {
    name: 'quorate_hook_duration_seconds',
    help: 'Time that hooks of administrators ran.',
    labels: ['stage'],
    buckets: stepBuckets,
  },
  webhook_seconds: {
    name: 'quorate_webhook_duration_seconds',
    help: 'Time of attempts to send a webhook delivery, by how they ended.',
    labels: ['outcome'],
    buckets: stepBuckets,
  },
  git_seconds: {
    name: 'quorate_git_duration_seconds',
    help: 'Run time of git processes, by git command.',
    labels: ['command'],
    buckets: requestBuckets,
  },
  commit_batch_size: {
    name: 'quorate_commit_batch_entries',
    help: 'Pushes committed in one coordinator transaction.',
    labels: [],
    buckets: [1, 2, 4, 8, 16, 32, 64, 100],
  },
};

const gauges: Record<GaugeName, MetricDefinition> = {
  connections: {
    name: 'quorate_connections',
    help: 'Open client connections.',
    labels: ['transport'],
  },
  locks_held: { name: 'quorate_locks_held', help: 'Locks held now, by scope.', labels: ['scope'] },
  locks_waiting: {
    name: 'quorate_locks_waiting',
    help: 'Pushes that wait for locks now, by scope.',
    labels: ['scope'],
  },
  repositories_lagging: {
    name: 'quorate_repositories_lagging',
    help: 'Repositories of whose pushes through this process some voter has not applied all.',
    labels: [],
  },
  copies_behind: {
    name: 'quorate_copies_behind',
    help: 'Copies that lack pushes which the push log holds no more, since their disks were put back or lost files, as the process sees that keeps the replica sets; 0 elsewhere.',
    labels: [],
  },
  repositories_without_majority: {
    name: 'quorate_repositories_without_majority',
    help: 'Repositories of which too few voters answer for a push, as the process sees that keeps the replica sets; 0 elsewhere.',
    labels: [],
  },
  replica_lag_generations: {
    name: 'quorate_replica_lag_generations',
    help: 'Generations that some voter of the repository that lags furthest may lack.',
    labels: [],
  },
  replica_lag_seconds: {
    name: 'quorate_replica_lag_seconds',
    help: 'For how long the repository that has lagged longest has had pushes that some voter lacks.',
    labels: [],
  },
  quarantines: {
    name: 'quorate_quarantines',
    help: 'Uploads on disk that are neither applied nor dropped.',
    labels: [],
  },
  read_sessions: {
    name: 'quorate_read_sessions',
    help: 'Reads that front-ends hold open on this storage node.',
    labels: [],
  },
  coordinator_lost_seconds: {
    name: 'quorate_coordinator_lost_seconds',
    help: 'For how long the coordinator has not answered; 0 while it does.',
    labels: [],
  },
  storage_nodes: {
    name: 'quorate_storage_nodes',
    help: 'Other storage nodes that announce themselves, by whether they answer this process.',
    labels: ['state'],
  },
  disk_trouble: {
    name: 'quorate_disk_trouble',
    help: '1 while the disk of this process is in trouble: it hangs, or it is full or otherwise takes nothing.',
    labels: ['kind'],
  },
  certificate_not_after: {
    name: 'quorate_certificate_not_after_seconds',
    help: 'When the TLS certificate in use ends, in seconds since 1970: https, between members of a cluster, or to etcd.',
    labels: ['use'],
  },
  pack_memory: {
    name: 'quorate_pack_memory_bytes',
    help: 'Estimated memory of fetches that make or send packs now.',
    labels: ['transport'],
  },
  queue_depth: {
    name: 'quorate_queue_depth',
    help: 'Entries waiting in internal queues.',
    labels: ['queue'],
  },
};

/**
 * Values that one label of one metric may take. Ours are closed sets of a dozen at most (git commands are the largest);
 * more means that somebody put a name into a label, which would grow the registry without end: a bug.
 */
const maxLabelValues = 48;

export interface Metrics extends Meter {
  /** The registry in Prometheus' text exposition format. */
  expose(): Promise<string>;
  /** `Content-Type` of `expose()`. */
  readonly contentType: string;
}

/** The metrics registry, with the process's own metrics (CPU, memory, event loop lag, garbage collection). */
export function createMetrics(options: { logger: Logger; version: string }): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  new Gauge({
    name: 'quorate_build_info',
    help: 'Always 1; the labels say what runs.',
    labelNames: ['version', 'node'],
    registers: [registry],
  }).set({ version: options.version, node: process.version }, 1);
  const counterOf = makeAll(counters, (definition) => makeCounter(registry, definition));
  const histogramOf = makeAll(histograms, (definition) => makeHistogram(registry, definition));
  const gaugeOf = makeAll(gauges, (definition) => makeGauge(registry, definition, options.logger));
  const checkLabels = labelCheck();
  const counterChild = childrenOf(counters, checkLabels, (name, labels) =>
    counterOf(name).labels(labels),
  );
  const histogramChild = childrenOf(histograms, checkLabels, (name, labels) =>
    histogramOf(name).labels(labels),
  );
  return {
    count: (name, labels = {}, by = 1) => counterChild(name, labels).inc(by),
    observe: (name, value, labels = {}) => histogramChild(name, labels).observe(value),
    gauge(name, labels, read) {
      checkLabels(gauges[name], labels);
      gaugeOf(name).set(labelKey(gauges[name], labels), { labels, read });
    },
    expose: () => registry.metrics(),
    contentType: registry.contentType,
  };
}

type GaugeReaders = Map<string, { readonly labels: Labels; readonly read: () => number }>;

function makeCounter(registry: Registry, definition: MetricDefinition): Counter {
  const counter = new Counter({
    name: definition.name,
    help: definition.help,
    labelNames: definition.labels,
    registers: [registry],
  });
  return counter;
}

function makeHistogram(registry: Registry, definition: HistogramDefinition): Histogram {
  return new Histogram({
    name: definition.name,
    help: definition.help,
    labelNames: definition.labels,
    buckets: [...definition.buckets],
    registers: [registry],
  });
}

function makeGauge(registry: Registry, definition: MetricDefinition, logger: Logger): GaugeReaders {
  const readers: GaugeReaders = new Map();
  const gauge: Gauge = new Gauge({
    name: definition.name,
    help: definition.help,
    labelNames: definition.labels,
    registers: [registry],
    collect() {
      for (const { labels, read } of readers.values()) {
        try {
          gauge.set(labels, read());
        } catch (error) {
          logger.warn(
            { component: 'metrics', metric: definition.name, err: error },
            'gauge failed',
          );
        }
      }
    },
  });
  return readers;
}

/** Asserts that labels are exactly the declared ones and that their values stay a small set of plain words. */
function labelCheck(): (definition: MetricDefinition, labels: Labels) => void {
  const seen = new Map<string, Set<string>>();
  return (definition, labels) => {
    const names = Object.keys(labels);
    assert.ok(
      names.length === definition.labels.length &&
        definition.labels.every((label) => Object.hasOwn(labels, label)),
      `metric ${definition.name} wants labels [${definition.labels.join()}], got [${names.join()}]`,
    );
    for (const label of definition.labels) {
      const value = labels[label] ?? '';
      const key = `${definition.name}/${label}`;
      const values = seen.get(key) ?? new Set();
      if (values.has(value)) continue;
      assert.match(value, /^[a-z0-9][a-z0-9_.-]{0,39}$/, `metric ${key}: not a closed value`);
      assert.ok(values.size < maxLabelValues, `metric ${key}: too many different values`);
      seen.set(key, values.add(value));
    }
  };
}

/**
 * Each metric's children by their label values, so that labels are checked, sorted and hashed when they first occur and
 * not at every request. As many as there are combinations of closed values.
 */
function childrenOf<Name extends string, Child>(
  definitions: Record<Name, MetricDefinition>,
  checkLabels: (definition: MetricDefinition, labels: Labels) => void,
  make: (name: Name, labels: Labels) => Child,
): (name: Name, labels: Labels) => Child {
  const children = new Map<Name, Map<string, Child>>();
  return (name, labels) => {
    const definition = definitions[name];
    let key = '';
    let given = 0;
    for (const label in labels) if (Object.hasOwn(labels, label)) given += 1;
    // A label that is missing makes a key of its own, which is never kept; a line feed is in no value that is.
    for (const label of definition.labels) key += `${labels[label] ?? ''}\n`;
    const ofMetric = children.get(name) ?? new Map<string, Child>();
    const known = ofMetric.get(key);
    if (known !== undefined && given === definition.labels.length) return known;
    checkLabels(definition, labels);
    const child = make(name, labels);
    children.set(name, ofMetric.set(key, child));
    return child;
  };
}

function labelKey(definition: MetricDefinition, labels: Labels): string {
  return definition.labels.map((label) => labels[label]).join(' ');
}

/** Makes every metric at once, so that each is exposed from the first scrape on. */
function makeAll<Name extends string, Definition, Made>(
  definitions: Record<Name, Definition>,
  make: (definition: Definition) => Made,
): (name: Name) => Made {
  const made = new Map<string, Made>();
  for (const [name, definition] of Object.entries<Definition>(definitions)) {
    made.set(name, make(definition));
  }
  return (name) => {
    const metric = made.get(name);
    assert.ok(metric !== undefined, `no metric is named ${name}`);
    return metric;
  };
}
