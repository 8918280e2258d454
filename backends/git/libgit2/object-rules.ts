/**
 * Recognises commits, tags and trees that `git index-pack --strict` takes without a word. Everything else is
 * `undecided`, and git itself then judges the pack: these rules may be stricter than git's fsck, never laxer.
 * Pure. The rules are those of git's fsck.c (git-fsck(1), "FSCK MESSAGES").
 */
import type { ObjectType } from '../../contract/objects.js';

/** An object that another one names, and what it has to be. */
export interface Link {
  readonly oid: string;
  readonly type: ObjectType;
}

export interface Recognised {
  readonly links: readonly Link[];
  /** Blobs named `.gitattributes`, which git looks into. */
  readonly attributes: readonly string[];
}

/** A reason for the log, not for a person: the object was not recognised as sound. */
export interface Undecided {
  readonly undecided: string;
}

const OID = '([0-9a-f]{40})';
/**
 * `name <email> seconds zone`, as strict as fsck_ident(): no `<`, `>` or newline in name and email, a space before
 * the email, no zero-padded date. Dates end at ten digits here (the year 2286); git goes further.
 */
const IDENT = String.raw`[^<>\n\0]* <[^<>\n\0]*> (?:0|[1-9][0-9]{0,9}) [+-][0-9]{4}`;
const COMMIT = new RegExp(
  `^tree ${OID}\\n((?:parent [0-9a-f]{40}\\n)*)author ${IDENT}\\ncommitter ${IDENT}\\n(?:[^\\n\\0]+\\n)*\\n`,
);
const TAG = new RegExp(
  `^object ${OID}\\ntype (commit|tree|blob|tag)\\ntag ([^\\n\\0]+)\\ntagger ${IDENT}\\n\\n`,
);
/** Tag names that are a valid ref name beyond doubt (git-check-ref-format(1)). */
const PLAIN_TAG_NAME = /^[A-Za-z0-9_][A-Za-z0-9_+-]*(?:[./][A-Za-z0-9_][A-Za-z0-9_+-]*)*$/;
const NULL_OID = '0'.repeat(40);

export function recogniseCommit(content: Buffer): Recognised | Undecided {
  if (content.includes(0)) return { undecided: 'commit with NUL' };
  const match = COMMIT.exec(content.toString('latin1'));
  if (match === null) return { undecided: 'commit header' };
  const parents = (match[2] ?? '').split('\n').filter((line) => line !== '');
  const links: Link[] = [{ oid: match[1] ?? NULL_OID, type: 'tree' }];
  for (const line of parents) links.push({ oid: line.slice('parent '.length), type: 'commit' });
  if (links.some((link) => link.oid === NULL_OID)) return { undecided: 'null oid' };
  return { links, attributes: [] };
}

export function recogniseTag(content: Buffer): Recognised | Undecided {
  if (content.includes(0)) return { undecided: 'tag with NUL' };
  const match = TAG.exec(content.toString('latin1'));
  if (match === null) return { undecided: 'tag header' };
  const [, oid = NULL_OID, typeName = '', name = ''] = match;
  if (!PLAIN_TAG_NAME.test(name) || /\.lock(?:\/|$)/.test(name)) return { undecided: 'tag name' };
  const type = objectTypes.find((known) => known === typeName);
  if (type === undefined || oid === NULL_OID) return { undecided: 'tag target' };
  return { links: [{ oid, type }], attributes: [] };
}

const objectTypes: readonly ObjectType[] = ['commit', 'tree', 'blob', 'tag'];

/** Modes that git writes today; anything else (0100664, zero padding) is for git to judge. `commit`: a submodule. */
const modes: Readonly<Record<string, ObjectType>> = {
  '100644': 'blob',
  '100755': 'blob',
  '120000': 'blob',
  '40000': 'tree',
  '160000': 'commit',
};
const MAX_NAME_BYTES = 1024;

export function recogniseTree(content: Buffer): Recognised | Undecided {
  const links: Link[] = [];
  const attributes: string[] = [];
  const names = new Set<string>();
  let previous = '';
  let at = 0;
  while (at < content.length) {
    const space = content.indexOf(0x20, at);
    const nul = space < 0 ? -1 : content.indexOf(0, space);
    if (nul < 0 || nul + 21 > content.length) return { undecided: 'tree entry cut short' };
    const mode = content.toString('latin1', at, space);
    const name = content.toString('latin1', space + 1, nul);
    const oid = content.toString('hex', nul + 1, nul + 21);
    at = nul + 21;
    const type = Object.hasOwn(modes, mode) ? modes[mode] : undefined;
    if (type === undefined) return { undecided: 'tree entry mode' };
    if (oid === NULL_OID) return { undecided: 'null oid' };
    // Bytewise order with a slash behind directories, as base_name_compare() has it; latin1 keeps bytes as they are.
    const sortKey = type === 'tree' ? `${name}/` : name;
    if (sortKey <= previous || names.has(name)) return { undecided: 'tree order' };
    previous = sortKey;
    names.add(name);
    const kind = judgeName(name, mode);
    if (kind === 'undecided') return { undecided: 'tree entry name' };
    if (kind === 'attributes') attributes.push(oid);
    if (mode !== '160000') links.push({ oid, type });
  }
  return { links, attributes };
}

/** Names that git gives a meaning to. Spelled otherwise, or as anything but plain files, they are for git to judge. */
const specialNames = new Set(['.git', '.gitmodules', '.gitattributes', '.gitignore', '.mailmap']);

/**
 * Whether a tree entry's name (bytes as latin1) is fine. `.git` and its relatives have many spellings that HFS+
 * (ignored code points) and NTFS (short names, trailing dots and spaces, streams, backslashes) take for the same:
 * whatever comes near one of them is `undecided`.
 */
function judgeName(name: string, mode: string): 'plain' | 'attributes' | 'undecided' {
  if (name === '' || name === '.' || name === '..' || name.length > MAX_NAME_BYTES) {
    return 'undecided';
  }
  if (name.includes('/') || name.includes('\\')) return 'undecided';
  const isFile = mode === '100644' || mode === '100755';
  if (isFile && name === '.gitattributes') return 'attributes';
  if (isFile && (name === '.gitignore' || name === '.mailmap')) return 'plain';
  const ascii = name.replace(/[\x80-\xff]/g, '').toLowerCase();
  const isAscii = ascii.length === name.length;
  // NTFS short names: GIT~1, GITMOD~1, GI7EBA~1, MAILMA~1, MABA30~1, ~1000000.
  if (ascii.includes('~') && /^[~gm]/.test(ascii)) return 'undecided';
  if (!isAscii && /^\.(?:git|mailmap)/.test(ascii)) return 'undecided';
  if (specialNames.has(ascii.replace(/:.*$/s, '').replace(/[. ]+$/, ''))) return 'undecided';
  return 'plain';
}

const MAX_ATTRIBUTES_BYTES = 1024 ** 2;
/** git refuses lines of 2048 bytes and more. */
const MAX_ATTRIBUTES_LINE = 2000;

/** True when git has nothing to say about a `.gitattributes` of this content (gitattributesLarge, ...LineLength). */
export function attributesAreFine(content: Buffer): boolean {
  if (content.length > MAX_ATTRIBUTES_BYTES || content.includes(0)) return false;
  let start = 0;
  while (start < content.length) {
    const newline = content.indexOf(0x0a, start);
    const end = newline < 0 ? content.length : newline;
    if (end - start > MAX_ATTRIBUTES_LINE) return false;
    start = end + 1;
  }
  return true;
}
