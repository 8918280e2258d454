/**
 * Which request this is, from its method and target (gitprotocol-http). Pure.
 *
 *   GET|HEAD $repo/info/refs?service=git-upload-pack|git-receive-pack
 *   POST     $repo/git-upload-pack | $repo/git-receive-pack
 *   GET|HEAD $repo                     a line of text for a person
 *   any      /api/...                  the admin API
 */
import type { GitServiceName } from '../core/git-request.js';
import { HttpRefusal } from './error-map.js';

export type HttpGitService = Exclude<GitServiceName, 'git-upload-archive'>;

export type Route =
  | { readonly kind: 'api' }
  | { readonly kind: 'advertise'; readonly service: HttpGitService; readonly path: string }
  | { readonly kind: 'rpc'; readonly service: HttpGitService; readonly path: string }
  | { readonly kind: 'page'; readonly path: string };

const archiveSentence =
  'git-upload-archive is not served over HTTP: use git archive --remote over SSH.';

const dumbSentence =
  'This server speaks only the smart HTTP protocol: use git 1.6.6 or newer, without GIT_SMART_HTTP=0, to clone and fetch.';

/** Files that a dumb-HTTP client asks for. */
const dumbFile =
  /\/(?:HEAD|objects\/(?:info\/[a-z-]+|[0-9a-f]{2}\/[0-9a-f]{38,62}|pack\/pack-[0-9a-f]{40,64}\.(?:pack|idx)))$/;

/** The route of a request. Throws `HttpRefusal` for what is not served: 400, 403, 404 and 405. */
export function routeOf(method: string, target: string): Route {
  const { rawPath, query } = splitTarget(target);
  if (rawPath === '/api' || rawPath.startsWith('/api/')) return { kind: 'api' };
  const path = decodePath(rawPath);
  if (path.endsWith('/info/refs')) return advertiseRoute(method, path, query);
  // A path may hold anything here, line feeds among it: whether it is a name is not for the route to say.
  const rpc = /^(.+)\/(git-upload-pack|git-receive-pack|git-upload-archive)$/s.exec(path);
  if (rpc !== null) return rpcRoute(method, rpc[1] ?? '', rpc[2] ?? '');
  allow(method, ['GET', 'HEAD']);
  if (dumbFile.test(path)) throw new HttpRefusal(403, dumbSentence);
  if (path === '/') throw new HttpRefusal(404, 'There is nothing here: name a repository.');
  return { kind: 'page', path };
}

function advertiseRoute(method: string, path: string, query: string): Route {
  allow(method, ['GET', 'HEAD']);
  const repository = path.slice(0, -'/info/refs'.length);
  const service = serviceOfQuery(query);
  switch (service) {
    case 'git-upload-pack':
    case 'git-receive-pack':
      return { kind: 'advertise', service, path: repository };
    case 'git-upload-archive':
      throw new HttpRefusal(403, archiveSentence);
    case undefined:
      throw new HttpRefusal(403, dumbSentence);
    default:
      throw new HttpRefusal(
        403,
        'This service does not exist: git asks for git-upload-pack or git-receive-pack.',
      );
  }
}

function rpcRoute(method: string, path: string, service: string): Route {
  allow(method, ['POST']);
  if (service === 'git-upload-pack' || service === 'git-receive-pack') {
    return { kind: 'rpc', service, path };
  }
  throw new HttpRefusal(403, archiveSentence);
}

function serviceOfQuery(query: string): string | undefined {
  // What git sends, without the cost of the general parser.
  if (query === 'service=git-upload-pack') return 'git-upload-pack';
  if (query === 'service=git-receive-pack') return 'git-receive-pack';
  return new URLSearchParams(query).get('service') ?? undefined;
}

function allow(method: string, methods: readonly string[]): void {
  if (methods.includes(method)) return;
  const allowed = methods.join(', ');
  throw new HttpRefusal(405, `This address answers ${allowed} only.`, { Allow: allowed });
}

/** Origin form (`/a?b`) or absolute form (`http://host/a?b`, RFC 9112 section 3.2.2). */
function splitTarget(target: string): { rawPath: string; query: string } {
  const absolute = /^https?:\/\/[^/?#]*/i.exec(target);
  const local = absolute === null ? target : target.slice(absolute[0].length) || '/';
  if (!local.startsWith('/')) throw new HttpRefusal(400, 'The request target is no path.');
  const mark = local.indexOf('?');
  return mark < 0
    ? { rawPath: local, query: '' }
    : { rawPath: local.slice(0, mark), query: local.slice(mark + 1) };
}

/** Decodes once. What could mean another path to another reader is refused rather than repaired. */
function decodePath(rawPath: string): string {
  if (/%(?:2f|5c|00)|#/i.test(rawPath)) {
    throw new HttpRefusal(400, 'The path holds an encoded slash, backslash or NUL.');
  }
  let path: string;
  try {
    path = decodeURIComponent(rawPath);
  } catch {
    throw new HttpRefusal(400, 'The path is not valid UTF-8 in percent-encoding.');
  }
  if (/\/\.{1,2}(?:\/|$)/.test(path)) throw new HttpRefusal(400, 'The path holds a dot segment.');
  return path;
}
