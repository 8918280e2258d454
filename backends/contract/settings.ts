import { isIgnorableFsckId } from './fsck-messages.js';

/**
 * Repository settings, under git's own names where git has one. Values are stored as git would print them; this table
 * is the only place that knows the keys, their types, defaults and meanings.
 */

type SettingKind =
  | 'boolean'
  | 'denial'
  | 'size'
  | 'count'
  | 'refs'
  | 'fsck-ids'
  | 'consistency'
  | 'read-consistency';

interface SettingDefinition {
  readonly kind: SettingKind;
  readonly default: string;
  readonly help: string;
}

export const settingDefinitions = {
  'receive.denyDeletes': { kind: 'boolean', default: 'false', help: 'refuse deletion of any ref' },
  'receive.denyDeleteCurrent': {
    kind: 'denial',
    default: 'refuse',
    help: 'deletion of the branch HEAD names: refuse (or true), warn, which allows it and tells the pusher, or ignore (or false)',
  },
  'receive.denyNonFastForwards': {
    kind: 'boolean',
    default: 'false',
    help: 'refuse updates that are no fast-forward',
  },
  'receive.maxInputSize': {
    kind: 'size',
    default: '4g',
    help: 'largest pack accepted (0: no limit)',
  },
  'receive.maxObjectSize': {
    kind: 'size',
    default: '2g',
    help: 'largest single object accepted, inflated (0: no limit)',
  },
  'receive.maxCommands': { kind: 'count', default: '50000', help: 'ref updates in one push' },
  'receive.maxRefs': {
    kind: 'count',
    default: '1000000',
    help: 'refs that the repository may hold',
  },
  'receive.fsckObjects': {
    kind: 'boolean',
    default: 'true',
    help: 'check incoming objects with fsck rules',
  },
  'receive.fsck.ignore': {
    kind: 'fsck-ids',
    default: '',
    help: 'fsck message ids to let pass, comma separated (e.g. zeroPaddedFilemode)',
  },
  'receive.advertisePushOptions': {
    kind: 'boolean',
    default: 'true',
    help: 'accept push options (git push -o)',
  },
  'receive.advertiseAtomic': { kind: 'boolean', default: 'true', help: 'accept atomic pushes' },
  'replication.consistency': {
    kind: 'consistency',
    default: 'default',
    help: 'stores that must hold a push before it is acknowledged: eventual, quorum, strong, or default (what the server is set to)',
  },
  'replication.readConsistency': {
    kind: 'read-consistency',
    default: 'default',
    help: 'what fetches see: strong, every push acknowledged before; eventual, what some store has; or default (what the server is set to)',
  },
  'uploadpack.allowFilter': { kind: 'boolean', default: 'true', help: 'partial clones (--filter)' },
  'uploadpack.allowAnySHA1InWant': {
    kind: 'boolean',
    default: 'true',
    help: 'wants by object id; commits and tags must still be reachable',
  },
  'uploadpack.allowRefInWant': { kind: 'boolean', default: 'true', help: 'ref-in-want' },
  'transfer.hideRefs': {
    kind: 'refs',
    default: '',
    help: 'ref prefixes hidden from everybody, comma separated, as git-config(1) says',
  },
  'uploadpack.hideRefs': { kind: 'refs', default: '', help: 'ref prefixes hidden from fetches' },
  'receive.hideRefs': {
    kind: 'refs',
    default: '',
    help: 'ref prefixes hidden from pushes, and not writable by them',
  },
} as const satisfies Record<string, SettingDefinition>;

export type SettingKey = keyof typeof settingDefinitions;

/** Only what was set; absent keys have the definition's default. */
export type StoredSettings = Readonly<Partial<Record<SettingKey, string>>>;

export function isSettingKey(key: string): key is SettingKey {
  return Object.hasOwn(settingDefinitions, key);
}

/** What is wrong with `value` for `key`, as in `wants true or false`; undefined when it can be stored. */
export function settingProblem(key: SettingKey, value: string): string | undefined {
  const { kind } = settingDefinitions[key];
  switch (kind) {
    case 'boolean':
      return parseBoolean(value) === undefined ? 'wants true or false' : undefined;
    case 'denial':
      return parseDenial(value) === undefined
        ? 'wants refuse, warn or ignore, or true or false'
        : undefined;
    case 'size':
    case 'count':
      return parseSize(value) === undefined
        ? 'wants a whole number, with k, m or g if you like'
        : undefined;
    case 'refs':
      return list(value).every((ref) => /^[!^]{0,2}[^\s~^:?*[\\\x00-\x1f\x7f]+$/.test(ref))
        ? undefined
        : 'wants ref prefixes, comma separated';
    case 'consistency':
      return ['default', 'eventual', 'quorum', 'strong'].includes(value)
        ? undefined
        : 'wants eventual, quorum, strong or default';
    case 'read-consistency':
      return ['default', 'strong', 'eventual'].includes(value)
        ? undefined
        : 'wants strong, eventual or default';
    case 'fsck-ids': {
      const unknown = list(value).find((id) => !isIgnorableFsckId(id));
      return unknown === undefined
        ? undefined
        : `wants message ids of git-fsck(1) that may be ignored, and ${JSON.stringify(unknown)} is none`;
    }
  }
}

export function booleanSetting(settings: StoredSettings, key: SettingKey): boolean {
  return parseBoolean(settings[key] ?? settingDefinitions[key].default) === true;
}

/** What a push is answered that does what the setting is about. */
export type Denial = 'refuse' | 'warn' | 'ignore';

export function denialSetting(settings: StoredSettings, key: 'receive.denyDeleteCurrent'): Denial {
  return parseDenial(settings[key] ?? settingDefinitions[key].default) ?? 'refuse';
}

/** Bytes or a count; 0 means no limit where the definition says so. */
export function numberSetting(settings: StoredSettings, key: SettingKey): number {
  return parseSize(settings[key] ?? settingDefinitions[key].default) ?? 0;
}

export function wordSetting(settings: StoredSettings, key: SettingKey): string {
  return settings[key] ?? settingDefinitions[key].default;
}

export function listSetting(settings: StoredSettings, key: SettingKey): readonly string[] {
  return list(settings[key] ?? settingDefinitions[key].default);
}

/** As git reads a boolean: words, nothing at all for false, or a number. */
function parseBoolean(value: string): boolean | undefined {
  if (/^(?:true|yes|on)$/i.test(value)) return true;
  if (/^(?:false|no|off)?$/i.test(value)) return false;
  const number = parseSize(value.replace(/^[+-]/, ''));
  return number === undefined ? undefined : number !== 0;
}

/** As git reads `receive.denyDeleteCurrent`. */
function parseDenial(value: string): Denial | undefined {
  const word = /^(?:refuse|warn|ignore)$/i.exec(value)?.[0].toLowerCase();
  if (word === 'refuse' || word === 'warn' || word === 'ignore') return word;
  const denied = parseBoolean(value);
  return denied === undefined ? undefined : denied ? 'refuse' : 'ignore';
}

function parseSize(value: string): number | undefined {
  const match = /^(\d{1,15})([kmg]?)$/i.exec(value);
  if (match === null) return undefined;
  const unit = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }[(match[2] ?? '').toLowerCase()] ?? 1;
  const bytes = Number(match[1]) * unit;
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

function list(value: string): readonly string[] {
  return value
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}
