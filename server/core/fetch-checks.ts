import type { ReadSession } from '../../backends/contract/backend.js';
import type { VisibleRefs } from '../../backends/contract/visible-refs.js';
import type { Oid } from '../../backends/contract/objects.js';
import { booleanSetting } from '../../backends/contract/settings.js';
import type { FetchScope } from '../wire/fetch-request.js';
import { excerpt } from '../wire/wire-error.js';
import { oidLength } from './git-context.js';
import { ProtocolRefusal } from './service-error.js';
import type { RefView } from './ref-view.js';

/** What a fetch is judged against. */
export interface FetchGround {
  readonly session: ReadSession;
  readonly view: RefView;
  readonly visible: VisibleRefs;
}

export interface WantedRef {
  readonly name: string;
  readonly oid: Oid;
}

/**
 * Refuses, in git's words, a fetch of what the client may not have. git itself is then told to take any want, since
 * it knows neither of hidden nor of past refs. Throws ProtocolRefusal.
 */
export async function checkFetch(ground: FetchGround, scope: FetchScope): Promise<void> {
  const { settings, objectFormat } = ground.session.repository;
  const length = oidLength(objectFormat);
  const odd = [...scope.wants, ...scope.shallow].find((oid) => oid.length !== length);
  if (odd !== undefined) throw new ProtocolRefusal(`upload-pack: bad object id ${odd}`);
  if (scope.filter !== undefined) {
    if (!booleanSetting(settings, 'uploadpack.allowFilter')) {
      throw new ProtocolRefusal('upload-pack: filters are not allowed here');
    }
    if (!isFilter(scope.filter)) {
      throw new ProtocolRefusal(`upload-pack: filter '${excerpt(scope.filter)}' not supported`);
    }
  }
  for (const name of scope.deepenNot) {
    if (!isOneRef(ground.view, name)) {
      throw new ProtocolRefusal(`upload-pack: ambiguous deepen-not: ${excerpt(name)}`);
    }
  }
  const forbidden = await forbiddenObject(ground, scope.wants);
  if (forbidden !== undefined) throw new ProtocolRefusal(`upload-pack: not our ref ${forbidden}`);
}

/** The first object that may not be served, or undefined. Tips pass without asking the backend. */
export async function forbiddenObject(
  { session, view, visible }: FetchGround,
  oids: readonly Oid[],
): Promise<Oid | undefined> {
  const others = [...new Set(oids)].filter((oid) => !view.hasTip(oid));
  if (others.length === 0) return undefined;
  if (!booleanSetting(session.repository.settings, 'uploadpack.allowAnySHA1InWant')) {
    return others[0];
  }
  return session.firstForbiddenWant(others, visible);
}

/** The objects of `want-ref` arguments, in their order. Throws ProtocolRefusal for a ref that is not to be seen. */
export function resolveWantRefs(
  { session, view }: FetchGround,
  names: readonly string[],
): readonly WantedRef[] {
  if (names.length === 0) return [];
  if (!booleanSetting(session.repository.settings, 'uploadpack.allowRefInWant')) {
    throw new ProtocolRefusal('upload-pack: want-ref is not allowed here');
  }
  if (new Set(names).size < names.length) throw new ProtocolRefusal('duplicate want-ref');
  return names.map((name) => {
    const oid = (name === 'HEAD' ? view.head : view.find(name))?.oid;
    if (oid === undefined) throw new ProtocolRefusal(`unknown ref ${excerpt(name)}`);
    return { name, oid };
  });
}

/** git's rules for a short ref name (gitrevisions(7)). */
const expansions: readonly ((name: string) => string)[] = [
  (name) => name,
  (name) => `refs/${name}`,
  (name) => `refs/tags/${name}`,
  (name) => `refs/heads/${name}`,
  (name) => `refs/remotes/${name}`,
  (name) => `refs/remotes/${name}/HEAD`,
];

/** `deepen-not` takes a name that means exactly one ref. */
function isOneRef(view: RefView, name: string): boolean {
  if (name === 'HEAD') return view.head?.oid !== undefined;
  return expansions.filter((expand) => view.find(expand(name)) !== undefined).length === 1;
}

/** Nesting of `combine:` looked at: git makes one level. */
const maxFilterDepth = 3;

/**
 * True for the filters offered (git-rev-list(1), `--filter`). `sparse:oid=` is not: it has the server look up any
 * revision expression that the client writes.
 */
export function isFilter(spec: string, depth = 0): boolean {
  if (/^(?:blob:none|blob:limit=\d{1,15}[kmg]?|tree:\d{1,9})$/i.test(spec)) return true;
  if (/^object:type=(?:blob|tree|commit|tag)$/.test(spec)) return true;
  if (!spec.startsWith('combine:') || depth >= maxFilterDepth) return false;
  return spec
    .slice('combine:'.length)
    .split('+')
    .every((part) => {
      const decoded = decode(part);
      return decoded !== undefined && isFilter(decoded, depth + 1);
    });
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
