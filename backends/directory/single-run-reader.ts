import { QuorateError } from '../contract/errors.js';
import type { ObjectType } from '../contract/objects.js';
import type { GitRunner } from '../git/git-runner.js';
import type { ObjectReader } from '../git/object-reader.js';

const types: Readonly<Record<string, ObjectType>> = {
  commit: 'commit',
  tree: 'tree',
  blob: 'blob',
  tag: 'tag',
};

/**
 * Types and sizes from one `git cat-file` for each question. A persistent one would go on reading a repository that
 * another tool has replaced.
 */
export function createSingleRunReader(git: GitRunner): Pick<ObjectReader, 'info'> {
  return {
    async info(gitDir, oids) {
      if (oids.length === 0) return [];
      const { exitCode, stdout, stderr } = await git.run({
        args: ['cat-file', '--batch-check=%(objecttype) %(objectsize)'],
        env: { GIT_DIR: gitDir },
        stdin: Buffer.from(oids.map((oid) => `${oid}\n`).join(''), 'latin1'),
      });
      const lines = stdout.toString('latin1').split('\n');
      if (exitCode !== 0 || lines.length !== oids.length + 1) {
        throw new QuorateError('storage-failure', 'the objects cannot be read', {
          details: { stderr },
        });
      }
      return oids.map((_, index) => {
        // `type size`, or `oid missing` (git-cat-file(1)).
        const [type = '', size] = (lines[index] ?? '').split(' ');
        const known = types[type];
        return known === undefined ? undefined : { type: known, sizeBytes: Number(size) };
      });
    },
  };
}
