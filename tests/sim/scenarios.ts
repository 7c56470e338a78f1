/**
 * Situations that random search does not reach, or not often enough, played on purpose. Each is
 * right as the store is, and goes wrong with the deliberate bug that it was written for.
 */
import type { MutantName } from "../../kv/mutant.ts";

/** Plays with a deliberate bug, or without; resolves with what broke, or with null. */
export type Scenario = (mutant: MutantName | null) => Promise<string | null>;

export const SCENARIOS: Partial<Record<MutantName, Scenario>> = {};
