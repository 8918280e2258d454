import type { Oid } from '../../contract/objects.js';
import type { GitCommand } from '../../git/git-runner.js';
import { GitStore } from './git-store.js';
import type { ModelObject } from './pack-model.js';
import type { SimulatedDisk } from './simulated-disk.js';
import { type Place, placeOf } from './simulated-files.js';

/** What one git is started with, understood. */
export interface GitRun {
  readonly place: Place;
  readonly store: GitStore;
  /** Object directories in the order in which git looks into them; the first one is written to. */
  readonly objectDirectories: readonly string[];
  readonly config: Readonly<Record<string, string>>;
  readonly args: readonly string[];
  readonly stdin: string;
}

export function understand({ args, env = {}, config = {} }: GitCommand, stdin: string): GitRun {
  const gitDir = env['GIT_DIR'] ?? args.at(-1) ?? '';
  const place = placeOf(gitDir);
  const first = placeOf(env['GIT_OBJECT_DIRECTORY'] ?? `${gitDir}/objects`).path;
  const alternates = (env['GIT_ALTERNATE_OBJECT_DIRECTORIES'] ?? '')
    .split(':')
    .filter((path) => path !== '')
    .map((path) => placeOf(path.replaceAll('"', '')).path);
  const directories = new Set([first, ...alternates]);
  for (const directory of directories) {
    for (const borrowed of alternatesOf(place.disk, directory)) directories.add(borrowed);
  }
  return {
    place,
    store: new GitStore(place.disk, place.path),
    objectDirectories: [...directories],
    config,
    args,
    stdin,
  };
}

/** gitrepository-layout(5), "objects/info/alternates". */
export function alternatesOf(disk: SimulatedDisk, directory: string): readonly string[] {
  const file = disk.find(`${directory}/info/alternates`);
  if (file?.kind !== 'file') return [];
  const lines = file.data.toString('utf8').split('\n');
  return lines.filter((line) => line !== '').map((line) => resolved(directory, line));
}

function resolved(directory: string, path: string): string {
  if (path.startsWith('/')) return placeOf(path).path;
  const names: string[] = [];
  for (const name of `${directory}/${path}`.split('/')) {
    if (name === '..') names.pop();
    else if (name !== '.' && name !== '') names.push(name);
  }
  return names.join('/');
}

export function objectsOf(run: GitRun): ReadonlyMap<Oid, ModelObject> {
  return run.store.objects(run.objectDirectories);
}
