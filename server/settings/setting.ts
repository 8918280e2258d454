/** What a setting is. Nothing here, or in the tables beside it, imports anything else: help loads them. */

export type SettingKind =
  | 'path'
  | 'file'
  | 'url'
  | 'address'
  | 'boolean'
  | 'count'
  | 'size'
  | 'duration'
  | 'networks'
  | 'choice'
  | 'text'
  | 'coordinator';

export interface Setting {
  readonly kind: SettingKind;
  /** As it would be written in the environment; undefined: not set. */
  readonly default: string | undefined;
  readonly help: string;
  /** `choice` only. */
  readonly choices?: readonly string[];
  /** `count` only. Default 1. */
  readonly minimum?: number;
  /** Name of its own flag; every other setting is reached with `--set KEY=VALUE`. */
  readonly flag?: string;
}
