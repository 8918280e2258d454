/**
 * Every setting of the server: its key, kind, default and meaning. The parser (`config.ts`), `quorate serve --help`
 * and `docs/configuration.md` are made from this table, so they cannot disagree. It imports nothing but its parts: the
 * CLI shows help without loading what the server needs.
 */
import { clusterSettings } from './settings/cluster-settings.js';
import { doorSettings } from './settings/door-settings.js';
import { hookSettings } from './settings/hook-settings.js';
import { limitSettings } from './settings/limit-settings.js';
import type { Setting } from './settings/setting.js';

export type { Setting, SettingKind } from './settings/setting.js';

export const configTable = {
  data: {
    kind: 'path',
    default: './data',
    flag: '--data',
    help: 'data directory: repositories, users, keys, host keys, audit log; one server at a time',
  },
  backend: {
    kind: 'choice',
    choices: ['local', 'directory'],
    default: 'local',
    flag: '--backend',
    help: "where repositories live: `local`, Quorate's own store in the data directory, or `directory`, plain bare repositories below `root` that other tools may use too",
  },
  root: {
    kind: 'path',
    default: undefined,
    flag: '--root',
    help: 'directory of bare repositories; needed by, and only for, the directory backend',
  },
  ...clusterSettings,
  ...doorSettings,
  'log.level': {
    kind: 'choice',
    choices: ['debug', 'info', 'warn', 'error'],
    default: 'info',
    flag: '--log-level',
    help: 'least serious log lines written (JSON, on stderr)',
  },
  autoCreate: {
    kind: 'boolean',
    default: 'true',
    help: 'a push to a repository that does not exist creates it, if the user may create repositories',
  },
  'shutdown.grace': {
    kind: 'duration',
    default: '30s',
    help: "how long running requests may finish after SIGTERM; keep it some seconds shorter than the time after which your supervisor kills (a pod's terminationGracePeriodSeconds, systemd's TimeoutStopSec)",
  },
  ...limitSettings,
  ...hookSettings,
  'store.threads': {
    kind: 'count',
    minimum: 0,
    default: '6',
    help: "threads that write the files of pushes, as many as are busy at once, some 8 MB each (0: Node's own do it, at more CPU for each push)",
  },
  'maintenance.enabled': {
    kind: 'boolean',
    default: 'true',
    help: 'repack repositories in the background after pushes',
  },
  'maintenance.grace': {
    kind: 'duration',
    default: '14d',
    help: 'how long objects that nothing reaches any more are kept',
  },
  'audit.maxFileSize': {
    kind: 'size',
    default: '64m',
    help: 'the audit log is set aside as `audit-<time>.jsonl` before it grows beyond this',
  },
  'audit.maxFiles': {
    kind: 'count',
    minimum: 0,
    default: '16',
    help: 'audit files set aside that are kept (0: all; then removing them is yours)',
  },
} as const satisfies Record<string, Setting>;

export type SettingName = keyof typeof configTable;

export function isSettingName(key: string): key is SettingName {
  return Object.hasOwn(configTable, key);
}

export const settingEntries: readonly (readonly [SettingName, Setting])[] = Object.entries<Setting>(
  configTable,
).filter((entry): entry is [SettingName, Setting] => isSettingName(entry[0]));

/** `limits.idleTime` -> `QUORATE_LIMITS_IDLE_TIME`. */
export function environmentName(key: string): string {
  const words = key.replaceAll(/([a-z])([A-Z])/g, '$1_$2').replaceAll('.', '_');
  return `QUORATE_${words.toUpperCase()}`;
}

/** What a value of a setting looks like, for help and messages. */
export function valueForm(setting: Setting): string {
  switch (setting.kind) {
    case 'path':
    case 'file':
      return 'a path';
    case 'url':
      return 'an http or https URL';
    case 'address':
      return 'HOST:PORT, an IPv6 address in brackets; port 0 for a free one';
    case 'boolean':
      return 'true or false';
    case 'count':
      return `a whole number, ${setting.minimum ?? 1} or more`;
    case 'size':
      return 'bytes, with k, m or g if you like, as in 64m';
    case 'duration':
      return 'a number with ms, s, m, h or d, as in 30s';
    case 'networks':
      return 'networks or addresses, comma separated, as in 10.1.0.0/16,fd00::/8';
    case 'choice':
      return (setting.choices ?? []).join(' or ');
    case 'text':
      return 'printable characters without spaces';
    case 'coordinator':
      return 'embedded, or etcd://HOST:PORT,HOST:PORT with the client address of each member';
  }
}

/** Argument of a flag in help; undefined for a switch. */
export function flagArgument(setting: Setting): string | undefined {
  switch (setting.kind) {
    case 'boolean':
      return undefined;
    case 'address':
      return 'HOST:PORT';
    case 'path':
      return 'DIR';
    case 'file':
      return 'FILE';
    case 'url':
      return 'URL';
    case 'choice':
      return (setting.choices ?? []).join('|');
    case 'coordinator':
      return 'embedded|etcd://HOST:PORT,...';
    case 'count':
    case 'size':
    case 'duration':
    case 'networks':
    case 'text':
      return 'VALUE';
  }
}

/** The settings as the table in `docs/configuration.md`. */
export function configurationMarkdown(): string {
  const rows = settingEntries.map(([key, setting]) => {
    const flag = setting.flag !== undefined ? `\`${setting.flag}\`` : '';
    const value = setting.default === undefined ? '' : `\`${setting.default}\``;
    const form = valueForm(setting);
    return `| \`${key}\` | \`${environmentName(key)}\` | ${flag} | ${value} | ${setting.help} | ${form} |`;
  });
  return [
    '| key | environment | flag | default | meaning | value |',
    '|---|---|---|---|---|---|',
    ...rows,
  ].join('\n');
}
