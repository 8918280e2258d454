import { join } from 'node:path';

/** Where a git run finds objects: the repository's own, and those of a push that is not promoted yet. */
export interface ObjectSources {
  readonly gitDir: string;
  /** Object directory of a quarantine; absent when the push brought no pack. */
  readonly objectDirectory?: string | undefined;
  /** More object directories, after the repository's own. */
  readonly alternates?: readonly string[];
}

/**
 * Environment in which git sees a quarantine's objects besides the repository's. GIT_QUARANTINE_PATH stays unset:
 * with it `git update-ref` refuses to do anything, even to prepare.
 */
export function objectEnvironment(sources: ObjectSources): Record<string, string> {
  const ownObjects = join(sources.gitDir, 'objects');
  const others = new Set(sources.alternates ?? []);
  others.delete(ownObjects);
  const quarantine = sources.objectDirectory;
  const alternates = quarantine === undefined ? [...others] : [ownObjects, ...others];
  return {
    GIT_DIR: sources.gitDir,
    ...(quarantine === undefined ? {} : { GIT_OBJECT_DIRECTORY: quarantine }),
    ...(alternates.length === 0
      ? {}
      : { GIT_ALTERNATE_OBJECT_DIRECTORIES: alternates.map(quote).join(':') }),
  };
}

/** git reads an entry that starts with a double quote as a C string, so that it may hold a colon. */
function quote(path: string): string {
  return /[:"\\\n]/.test(path)
    ? `"${path.replace(/["\\]/g, String.raw`\$&`).replaceAll('\n', String.raw`\n`)}"`
    : path;
}
