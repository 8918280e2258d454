import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { QuorateError } from '../backends/contract/errors.js';
import { isNodeId, nodeIdForm } from '../backends/replicated/node-record.js';
import { parseNetworks } from '../hooks/webhooks/targets.js';
import { environmentName, isSettingName, settingEntries, valueForm } from './config-table.js';
import type { configTable, Setting, SettingName } from './config-table.js';
import { nearNames } from './near-names.js';

export interface Address {
  /** Name or IP address, an IPv6 one without brackets. */
  readonly host: string;
  readonly port: number;
}

export type CoordinatorChoice =
  | { readonly type: 'embedded' }
  /** `HOST:PORT` of each member. */
  | { readonly type: 'etcd'; readonly endpoints: readonly string[] };

type KindValue<S extends Setting> = S extends { kind: 'coordinator' }
  ? CoordinatorChoice
  : S extends { kind: 'address' }
    ? Address
    : S extends { kind: 'boolean' }
      ? boolean
      : S extends { kind: 'count' | 'size' | 'duration' }
        ? number
        : S extends { choices: readonly (infer Choice)[] }
          ? Choice
          : string;

type ValueOf<S extends Setting> = S extends { default: string }
  ? KindValue<S>
  : KindValue<S> | undefined;

/**
 * The server's configuration: one frozen object, its keys those of `configTable`. Sizes are bytes, durations
 * milliseconds, paths absolute.
 */
export type Config = { readonly [K in SettingName]: ValueOf<(typeof configTable)[K]> };

/** What `quorate serve` was given: `values` by setting key, already told apart from other flags. */
export interface ConfigSources {
  /** `--config FILE`; without it `QUORATE_CONFIG`, without that no file. */
  readonly file?: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Settings given as flags of their own: key -> value as typed. */
  readonly flags: Readonly<Partial<Record<SettingName, string | boolean>>>;
  /** `--set KEY=VALUE`, in order. */
  readonly set: readonly string[];
  /** Relative paths in flags and the environment start here; those in the file start at the file's directory. */
  readonly workingDirectory: string;
}

/** A value before it is parsed, with where it came from for the message that refuses it. */
interface Given {
  readonly value: unknown;
  readonly from: string;
  readonly baseDirectory: string;
}

type GivenValues = Map<SettingName, Given>;

/**
 * Puts the configuration together: defaults < file < environment < flags, and checks all of it before anything
 * starts. Throws `invalid-argument` with one sentence that names the key and where it came from.
 */
export function loadConfig(sources: ConfigSources): Config {
  const given: GivenValues = new Map();
  const base = sources.workingDirectory;
  for (const [key, { default: value }] of settingEntries) {
    if (value !== undefined) given.set(key, { value, from: 'the defaults', baseDirectory: base });
  }
  const file = sources.file ?? sources.env['QUORATE_CONFIG'];
  if (file !== undefined) readFile(path.resolve(base, file), given);
  readEnvironment(sources, given);
  for (const [key, setting] of settingEntries) {
    const value = sources.flags[key];
    const from = `the flag ${setting.flag ?? key}`;
    if (value !== undefined) given.set(key, { value, from, baseDirectory: base });
  }
  for (const assignment of sources.set) {
    const [key = '', ...rest] = assignment.split('=');
    const from = `the flag --set ${assignment}`;
    if (rest.length === 0) throw refusal(`${from} wants KEY=VALUE`);
    given.set(knownKey(key, from), { value: rest.join('='), from, baseDirectory: base });
  }
  const config = parse(given);
  checkTogether(config, given);
  return config;
}

/**
 * JSON, not YAML: it needs no further parser, has one way to write each value (no `no` that means false), and is
 * itself valid YAML, so what writes YAML can write it. Nested objects or dotted keys: `{"log": {"level": "warn"}}`.
 */
function readFile(file: string, given: GivenValues): void {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const code = codeOf(error);
    const why = code === 'ENOENT' ? 'there is no such file' : code;
    throw refusal(`the configuration file ${file} cannot be read (${why})`, error);
  }
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw refusal(`the configuration file ${file} is not JSON: ${messageOf(error)}`, error);
  }
  const from = `the file ${file}`;
  if (!isRecord(content)) throw refusal(`${from} must hold one JSON object`);
  const walk = (record: Readonly<Record<string, unknown>>, prefix: string): void => {
    for (const [name, value] of Object.entries(record)) {
      const key = prefix + name;
      if (isRecord(value)) walk(value, `${key}.`);
      else given.set(knownKey(key, from), { value, from, baseDirectory: path.dirname(file) });
    }
  };
  walk(content, '');
}

/** Variables of the command line client and of the configuration file's place; no settings. */
const otherVariables = new Set([
  'QUORATE_CONFIG',
  'QUORATE_URL',
  'QUORATE_TOKEN',
  'QUORATE_CA_FILE',
]);
/** What Kubernetes puts into every pod beside a Service named `quorate` or `quorate-...`. */
const serviceVariable = /_SERVICE_(HOST|PORT)(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?$/;

function readEnvironment(sources: ConfigSources, given: GivenValues): void {
  const keys = new Map(settingEntries.map(([key]) => [environmentName(key), key]));
  for (const [name, value] of Object.entries(sources.env)) {
    if (!name.startsWith('QUORATE_') || value === undefined || otherVariables.has(name)) continue;
    const key = keys.get(name);
    const from = `the environment variable ${name}`;
    if (key !== undefined) given.set(key, { value, from, baseDirectory: sources.workingDirectory });
    else if (!serviceVariable.test(name)) {
      throw refusal(`${from} names no setting; ${meant(name, [...keys.keys()])}`);
    }
  }
}

function knownKey(key: string, from: string): SettingName {
  if (isSettingName(key)) return key;
  const known = settingEntries.map(([name]) => name);
  throw refusal(`${key} in ${from} is no setting; ${meant(key, known)}`);
}

/** What to write instead of a name that is unknown. */
function meant(name: string, known: readonly string[]): string {
  const near = nearNames(name, known);
  return near.length > 0
    ? `did you mean ${near.join(' or ')}?`
    : 'docs/configuration.md lists all of them';
}

function parse(given: GivenValues): Config {
  const values: Record<string, unknown> = {};
  for (const [key, setting] of settingEntries) {
    const entry = given.get(key);
    if (entry === undefined) continue;
    const parsed = schemaOf(setting, entry.baseDirectory).safeParse(entry.value);
    if (!parsed.success) {
      const shown = JSON.stringify(entry.value);
      throw refusal(`${key} in ${entry.from} wants ${valueForm(setting)}, not ${shown}`);
    }
    values[key] = parsed.data;
  }
  assert.ok(isComplete(values), 'every setting with a default has a value');
  return Object.freeze(values);
}

/** Each value was parsed by the schema of its kind, so what is left to see is that none is missing. */
function isComplete(values: Readonly<Record<string, unknown>>): values is Config {
  return settingEntries.every(([key, setting]) => setting.default === undefined || key in values);
}

function schemaOf(setting: Setting, baseDirectory: string): z.ZodType {
  switch (setting.kind) {
    case 'path':
    case 'file':
      return z
        .string()
        .min(1)
        .refine((value) => !value.includes('\0'))
        .transform((value) => path.resolve(baseDirectory, value));
    case 'url':
      return z.url({ protocol: /^https?$/ }).transform((value) => value.replace(/\/+$/, ''));
    case 'address':
      return addressSchema;
    case 'boolean':
      return z.union([z.boolean(), z.enum(['true', 'false']).transform((word) => word === 'true')]);
    case 'count':
      return wholeNumber(setting.minimum ?? 1);
    case 'size':
      return z.union([wholeNumber(0), quantity(/^(\d+)(k|m|g)$/i, sizeUnits)]);
    case 'duration':
      return quantity(/^(\d+)(ms|s|m|h|d)$/, durationUnits).refine((ms) => ms <= maxDurationMs);
    case 'networks':
      return z.string().refine((value) => parseNetworks(value) !== undefined);
    case 'choice':
      return z.enum(setting.choices ?? []);
    case 'text':
      return z.string().regex(/^[!-~]{1,256}$/);
    case 'coordinator':
      return coordinatorSchema;
  }
}

const sizeUnits: Readonly<Record<string, number>> = { k: 1024, m: 1024 ** 2, g: 1024 ** 3 };
const durationUnits: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};
/** Node's timers hold 2^31 - 1 ms, just under 25 days; a longer one would fire at once. */
const maxDurationMs = 2 ** 31 - 1;

const addressSchema = z
  .string()
  .regex(/^(\[[0-9a-fA-F:.]+\]|[^\s:[\]/]+):\d{1,5}$/)
  .transform((value): Address => {
    const colon = value.lastIndexOf(':');
    const host = value.slice(0, colon).replaceAll(/[[\]]/g, '');
    return Object.freeze({ host, port: Number(value.slice(colon + 1)) });
  })
  .refine(({ port }) => port <= 65_535);

const coordinatorSchema = z.union([
  z.literal('embedded').transform((type): CoordinatorChoice => Object.freeze({ type })),
  z
    .string()
    .startsWith('etcd://')
    .transform((value) => value.slice('etcd://'.length).replace(/\/$/, '').split(','))
    .refine((endpoints) =>
      endpoints.every((one) => {
        const parsed = addressSchema.safeParse(one);
        return parsed.success && parsed.data.port !== 0;
      }),
    )
    .transform((endpoints): CoordinatorChoice => Object.freeze({ type: 'etcd', endpoints })),
]);

function wholeNumber(minimum: number): z.ZodType<number> {
  return z
    .union([z.number(), z.string().regex(/^\d+$/).transform(Number)])
    .refine((value) => Number.isSafeInteger(value) && value >= minimum);
}

function quantity(form: RegExp, units: Readonly<Record<string, number>>): z.ZodType<number> {
  return z
    .string()
    .regex(form)
    .transform((value) => {
      const [, amount, unit = ''] = form.exec(value) ?? [];
      return Number(amount) * (units[unit.toLowerCase()] ?? Number.NaN);
    })
    .refine((value) => Number.isSafeInteger(value));
}

/** Rules over more than one setting. */
function checkTogether(config: Config, given: GivenValues): void {
  const where = (key: SettingName): string => `${key} in ${given.get(key)?.from ?? 'the defaults'}`;
  if (config.backend === 'directory' && config.root === undefined) {
    throw refusal(
      `${where('backend')} is directory, which needs root: the directory of the repositories`,
    );
  }
  if (config.backend !== 'directory' && config.root !== undefined) {
    throw refusal(`${where('root')} is only for backend=directory`);
  }
  const needs = [
    ['tls.cert', 'tls.key'],
    ['tls.key', 'tls.cert'],
    ['etcd.cert', 'etcd.key'],
    ['etcd.key', 'etcd.cert'],
    ['etcd.cert', 'etcd.ca'],
    ['etcd.user', 'etcd.passwordFile'],
    ['etcd.passwordFile', 'etcd.user'],
    ['cluster.tls.ca', 'cluster.tls.cert'],
    ['cluster.tls.cert', 'cluster.tls.key'],
    ['cluster.tls.key', 'cluster.tls.ca'],
  ] as const;
  for (const [key, other] of needs) {
    if (config[key] !== undefined && config[other] === undefined) {
      throw refusal(`${where(key)} needs ${other} too`);
    }
  }
  checkMembership(config, where);
  const addresses = ['http', 'ssh', 'ops'] as const;
  for (const key of addresses) {
    if (config.noAuth && !isLoopback(config[key].host)) {
      throw refusal(`${where('noAuth')} is refused, since ${where(key)} is no loopback address`);
    }
    for (const other of addresses.slice(addresses.indexOf(key) + 1)) {
      const same = config[key].port !== 0 && config[key].port === config[other].port;
      if (same && config[key].host === config[other].host) {
        throw refusal(`${where(key)} and ${where(other)} are the same address`);
      }
    }
  }
}

function checkMembership(config: Config, where: (key: SettingName) => string): void {
  const nodeId = config['node.id'];
  if (nodeId !== undefined && !isNodeId(nodeId)) {
    throw refusal(`${where('node.id')} is no node id: ${nodeIdForm}`);
  }
  const known =
    config['cluster.secretFile'] !== undefined || config['cluster.tls.ca'] !== undefined;
  if (known && config.coordinator.type === 'embedded') {
    throw refusal(
      `${where(config['cluster.secretFile'] === undefined ? 'cluster.tls.ca' : 'cluster.secretFile')} is for a cluster, which needs a coordinator that its members share: --coordinator etcd://HOST:PORT,...`,
    );
  }
  if (known && config['cluster.alone']) {
    throw refusal(
      `${where('cluster.alone')} is for a server that is no member of a cluster, and this one has a secret or certificates for one: leave one of them away`,
    );
  }
  if (config.role === 'all') return;
  if (config.backend !== 'local') throw refusal(`${where('role')} is only for backend=local`);
  if (config.coordinator.type === 'embedded') {
    throw refusal(
      `${where('role')} is ${config.role}, which needs a coordinator that all members share: --coordinator etcd://HOST:PORT,...`,
    );
  }
  if (!known) {
    throw refusal(
      `${where('role')} is ${config.role}, and members of a cluster must know each other: give all of them the same secret (openssl rand -hex 32 > cluster-secret; --cluster-secret-file cluster-secret), or certificates of one authority (cluster.tls.ca, cluster.tls.cert, cluster.tls.key)`,
    );
  }
}

/** True for addresses that only this machine reaches. Names other than `localhost` are not looked up: they may change. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

function refusal(message: string, cause?: unknown): QuorateError {
  return new QuorateError('invalid-argument', message, { cause });
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : messageOf(error);
}
