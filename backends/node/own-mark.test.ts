import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Logger } from '../contract/environment.js';
import { OwnMark } from './own-mark.js';

function scene(): { readonly mark: OwnMark; readonly said: string[] } {
  const said: string[] = [];
  const say =
    (level: string) =>
    (_fields: object, message: string): void =>
      void said.push(`${level}: ${message}`);
  const logger: Logger = {
    debug: say('debug'),
    info: say('info'),
    warn: say('warn'),
    error: say('error'),
    child: () => logger,
  };
  return { mark: new OwnMark({ nodeId: 'node-1', logger }), said };
}

const atMs = Date.UTC(2026, 0, 2, 3, 4, 5);

test('a node that was removed says so once, with when and how it comes back, and its health says it too', () => {
  const { mark, said } = scene();
  mark.show(undefined);
  assert.deepEqual([mark.problem, said], [undefined, []]);
  mark.show({ mark: 'removed', atMs });
  mark.show({ mark: 'removed', atMs });
  const words =
    'this node was removed on 2026-01-02 03:04:05 UTC, and gets no repositories: stop it, or take it back with quorate node undrain node-1';
  assert.deepEqual(said, [`warn: ${words}`]);
  assert.equal(mark.problem, words);
  mark.show(undefined);
  assert.equal(mark.problem, undefined);
  assert.deepEqual(said.slice(1), ['info: this node takes repositories again']);
});

test('a node that is drained says so, which is no problem', () => {
  const { mark, said } = scene();
  mark.show({ mark: 'draining', atMs });
  assert.equal(mark.problem, undefined);
  mark.show({ mark: 'removed' });
  assert.match(mark.problem ?? '', /^this node was removed, and gets no repositories: /);
  assert.match(said.join('\n'), /^info: this node is drained: .*\nwarn: this node was removed, /);
});
