"""The languages a collection can have, and the words by which a text shows which of them it is in."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, TypeAlias, get_args

Language: TypeAlias = Literal[
    "auto",
    "multilingual",
    "cjk",
    "code",
    "arabic",
    "armenian",
    "basque",
    "catalan",
    "czech",
    "danish",
    "dutch",
    "english",
    "esperanto",
    "estonian",
    "finnish",
    "french",
    "german",
    "greek",
    "hindi",
    "hungarian",
    "indonesian",
    "irish",
    "italian",
    "lithuanian",
    "nepali",
    "norwegian",
    "persian",
    "polish",
    "portuguese",
    "romanian",
    "russian",
    "serbian",
    "sesotho",
    "spanish",
    "swedish",
    "tamil",
    "turkish",
    "yiddish",
]
SNOWBALL: tuple[str, ...] = get_args(Language)[4:]

# Devanagari to Sinhala, dandas left out: their vowel signs are no word characters to `re`.
INDIC = "\u0900-\u0963\u0966-\u0dff"

# Thai to Khmer, without the blanks between words that others have.
SOUTH_EAST = "\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff"

# Raised whenever equal texts get other terms than before: what is stored is then encoded again at the next start.
_ANALYSIS = 3


def analyser_of(language: str) -> str:
    """What an index version notes of how its words were told apart and reduced."""
    return f"{language}/{_ANALYSIS}"


def is_newer(analyser: str) -> bool:
    """Whether a newer version of the service noted this: what it encoded cannot be asked in our terms."""
    analysis = analyser.partition("/")[2]
    return analysis.isdecimal() and int(analysis) > _ANALYSIS


def without_accents(text: str) -> str:
    """Letters without the marks above and below them and without what is not seen, in their plain form.

    й stays, it is a letter of its own; so do joiners and non-joiners, which part words in Persian and shape Indic ones.
    """
    plain = _MARKS.sub("", unicodedata.normalize("NFKD", text).replace("I\u0307", "i"))
    for ligature, letters in _LIGATURES:
        plain = plain.replace(ligature, letters)
    return unicodedata.normalize("NFKC", plain)


# Letters to Unicode, which takes apart the others.
_LIGATURES = (("œ", "oe"), ("Œ", "OE"), ("æ", "ae"), ("Æ", "AE"))

# Latin, Greek and Cyrillic accents (of the breves, not that of й), Hebrew points (not the marks that part words),
# Arabic vowel signs and tatweel; soft hyphens and spaces of no width. The class comes first: `re` skips ahead to it.
_MARKS = re.compile(
    "[\u00ad\u200b\u2060\ufeff\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u064b-\u065f\u0670\u0640](?<![\u0438\u0418]\u0306)"
)

# The commonest grammatical words, by which a text's language is told and which are not worth indexing in it. English
# lacks its contractions' apostrophes because words are cut there.
_GRAMMAR = {
    "english": "a about above after again against ain all am an and any are aren as at be because been before"
    " being below between both but by can couldn d did didn do does doesn doing don down during each few"
    " for from further had hadn has hasn have haven having he her here hers herself him himself his how"
    " i if in into is isn it its itself just ll m ma me mightn more most mustn my myself needn no nor"
    " not now o of off on once only or other our ours ourselves out over own re s same shan she should"
    " shouldn so some such t than that the their theirs them themselves then there these they this those"
    " through to too under until up ve very was wasn we were weren what when where which while who whom"
    " why will with won wouldn y you your yours yourself yourselves",
    "german": "aber als am an auch auf aus bei bin bis bist da damit dann das dass dem den denn der des die diese"
    " diesem diesen dieser dieses doch dort du durch ein eine einem einen einer eines er es etwas euch"
    " für gegen hat hatte hatten haben habe hier hinter ich ihm ihn ihr ihre ihrem ihren ihrer im in ins"
    " ist ja jede jeder kann kein keine können man mehr mein meine mit muss nach nicht nichts noch nun"
    " nur ob oder ohne sehr sein seine seinem seinen seiner seit sich sie sind so sollte um und uns"
    " unter vom von vor war waren warum was weil welche welchem welchen welcher welches wenn wer wem wen"
    " wie wird wir wo wurde wurden während zu zum zur zwischen über viele gab",
    "dutch": "aan al alles als bij dan dat de der deze die dit doch doen door een en er ge geen haar had hebben"
    " heb heeft hem het hier hij hoe hun ik iemand in is ja je kan kon maar me meer men met mij mijn"
    " moet na naar niet niets nog nu of om onder ons ook op over reeds te tegen toch toen tot u uit van"
    " veel voor want waren was wat welke werd wezen wie wil worden wordt zal ze zich zij zijn zo zonder"
    " zou waar wanneer waarom",
    "french": "à ai ais au aux avec avait ce ces cette comme dans de des du elle elles en est et été était"
    " étaient être eu il ils je l la le les leur leurs lui ma mais me mes moi mon même ne nos notre nous"
    " on ont ou où par pas pour pourquoi qu que quel quelle quelles quels qui quand s sa sans se ses son"
    " sont sur ta te tes toi ton tu un une vos votre vous y d c j n t m combien comment",
    "spanish": "a al algo ante antes como con contra cual cuales cuando cuanto cuantos de del desde donde durante"
    " e el ella ellas ellos en entre era eran es esa ese eso esta estaba están este esto estos fue"
    " fueron ha había han hasta hay la las le les lo los más me mi mis mucho muchos muy nada ni no nos o"
    " otra otro para pero poco por porque que qué quién quien se ser si sin sobre son su sus también"
    " tanto te tiene tu un una uno unos y ya yo cómo cuándo dónde",
    "portuguese": "a ao aos as até com como da das de dela dele deles depois do dos e ela elas ele eles em entre era"
    " eram essa esse esta está este eu foi foram há isso isto já lhe mais mas me mesmo meu muito na nas"
    " nem no nos nossa não num numa o os ou para pela pelas pelo pelos por qual quais quando quantos que"
    " quem se sem ser seu seus são só sua suas também te tem tinha um uma você vocês onde porque",
    "italian": "a ad ai al alla alle agli anche c che chi ci come con cosa cui da dai dal dalla dalle degli dei"
    " del della delle dello di dove e ed era erano essere fu furono gli ha hanno i il in io l la le lei"
    " lo loro lui ma mi mio ne negli nei nel nella nelle noi non nostro o per perché perche più piu"
    " quale quali quando quanti quanto quello questa questo questi se si sia sono su sua sue sul sulla"
    " suo suoi tra tu un una uno vi voi è",
    "swedish": "alla allt att av blev bli blir de dem den denna deras dess det detta dig din dina du där då efter"
    " ej eller en er ett från för ha hade han hans har henne hennes hon honom hur här i icke ingen inte"
    " jag ju kan kunde man med mellan men mig min mot mycket ni nu när någon några och om oss på samma"
    " sedan sig sin sina sitt själv skulle som så till under upp ut utan vad var vara varför vem vi vid"
    " vilka vilken vilket vår åt över är",
    "danish": "ad af alle alt anden at blev blive bliver da de dem den denne der deres det dette dig din disse"
    " dog du efter eller en end er et for fra han hans har havde have hende hendes her hos hun hvad hvem"
    " hvilken hvilke hvis hvor hvordan hvorfor i ikke ind jeg jer jo kan kunne man mange med meget men"
    " mig min mod ned noget nogle nu når og også om op os over på selv sig sin skal skulle som sådan thi"
    " til ud under var vi vil ville være været",
    "norwegian": "alle at av bare begge ble blei bli blir både da de deg dei deim deira den denne der dere deres det"
    " dette din disse du eg eit eller en enn er et etter for fordi fra før ha hadde han hans har hennes"
    " her hun hva hvem hvilke hvilken hvor hvordan hvorfor i ikke ikkje inn ja jeg kan kom kunne man"
    " mange med meg men mi min mot mye noe noen nå når og også om opp oss over på seg selv sin skal"
    " skulle slik som så til ut var ved vi vil ville vår være vært å",
    "finnish": "ei eivät en ennen että he hän ilman ja jo joka jos jossa jotka kanssa ketkä koska kuin kuinka kuka"
    " kun me miksi mikä millä missä minä mitä mitkä mutta myös ne niin nyt nämä oli olivat olla on ovat"
    " sekä se sen siinä sinä sitä tai tämä tämän te vaan vai vain",
    "polish": "aby ale bez bo by był była było były być co czy dla do gdy gdzie go i ich ile im ja jak jaki jakie"
    " jako jest jeszcze już jego jej kiedy kto która które który lub ma może na nad nie o od on ona oraz"
    " po pod ponieważ przez przy się są ta tak tam te tego tej to tym tylko w we wielu więc z za ze że",
    "czech": "a aby ale ani až bez by byl byla bylo byly být co což do i jak jako jaký jeho jejich jen ještě ji"
    " již jsem jsou k kde kdo kdy kdyby která které který kteří ku mezi na nad ne nebo není o od pak po"
    " pod podle pro proč proto protože před při s se si tak také tam ten to tím u už v ve za že",
    "romanian": "ai al ale am ar are asta au avea aceasta acest această ca care ce cele cei cel cu că când cât câte"
    " cum da de decât din dar despre după ea ei el era este eu fi fie fost în intre între la le lui mai"
    " nu o pe pentru prin sa sale sau se si și său sunt un una unde unei unor unui vor în",
    "hungarian": "a amely az azt be csak de e egy el ez ezt egyik fel ha hány hogy hogyan hol ide igen is itt ki kik"
    " már meg melyik mert mely mi mikor milyen mint míg mit nagyon nem nincs ő olyan ott pedig s sem"
    " több után vagy van vannak volt voltak és",
    "turkish": "ama bir biri bu buna bunu da daha de değil diye en gibi göre hangi hem her için ile ise ki kim mi"
    " mu mı nasıl ne neden nerede o olan olarak oldu olduğu onu onun sonra şey şu tarafından ve veya ya"
    " yok zaman kaç",
}
FUNCTION_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(without_accents(word).casefold() for word in words.split())
    for language, words in _GRAMMAR.items()
}
