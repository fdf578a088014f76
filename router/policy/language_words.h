/* Words that stand in nearly every text of a language, and whose they are; sorted by their bytes, in lower
 * case. Written by hand: articles, pronouns, prepositions, and what requests begin with. */
#pragma once

// clang-format off
#define LANGUAGE_WORDS(X)                                                                                    \
    X("a", EN | FR | ES | PT | IT | PL | CS) X("aan", NL) X("aber", DE) X("about", EN) X("af", DA)           \
    X("after", EN) X("ai", IT) X("al", ES | IT) X("ale", PL | CS) X("all", EN) X("alla", IT | SV)            \
    X("alle", DE | NL) X("allora", IT) X("als", DE | NL) X("alsjeblieft", NL) X("also", EN) X("am", DE)      \
    X("ama", TR) X("an", EN | DE) X("anche", IT) X("ancora", IT) X("and", EN) X("antes", ES | PT)            \
    X("any", EN) X("ao", PT) X("aos", PT) X("après", FR) X("aqui", PT) X("aquí", ES) X("arasındaki", TR)     \
    X("arbeid", NB) X("arbejde", DA) X("are", EN) X("as", EN | PT) X("at", EN | DA | NB) X("att", SV)        \
    X("até", PT) X("au", FR) X("auch", DE) X("auf", DE) X("aus", DE) X("aussi", FR) X("aux", FR)             \
    X("av", SV | NB) X("avant", FR) X("avec", FR) X("avoir", FR) X("açıkla", TR) X("bana", TR) X("bara", SV) \
    X("bardzo", PL) X("bare", NB) X("be", EN) X("because", EN) X("bedst", DA) X("bedste", DA) X("been", EN)  \
    X("before", EN) X("bei", DE) X("ben", NL | TR) X("beni", TR) X("benim", TR) X("best", NB)                \
    X("beste", DE | NL | NB) X("between", EN) X("bez", PL | CS) X("beş", TR) X("bij", NL) X("bin", DE)       \
    X("bir", TR) X("bitte", DE) X("biz", TR) X("bizim", TR) X("ble", NB) X("blev", DA) X("bli", NB)          \
    X("blir", SV | NB) X("blive", DA) X("bliver", DA) X("bog", DA) X("bok", SV | NB) X("brug", DA)           \
    X("bruge", DA) X("bruger", DA) X("bruk", NB) X("bruke", NB) X("bruker", NB) X("bu", TR) X("bunu", TR)    \
    X("bunun", TR) X("burada", TR) X("but", EN) X("by", EN | CS) X("bych", CS) X("byl", CS) X("byla", CS)    \
    X("bylo", CS) X("być", PL) X("był", PL) X("była", PL) X("było", PL) X("böyle", TR) X("bøger", DA)        \
    X("bøker", NB) X("být", CS) X("c", FR | IT) X("can", EN) X("ce", FR) X("ces", FR) X("cet", FR)           \
    X("cette", FR) X("chaque", FR) X("chci", CS) X("chcę", PL) X("che", IT) X("chez", FR) X("chi", IT)       \
    X("chtěl", CS) X("ci", IT) X("cinco", ES | PT) X("cinq", FR) X("cinque", IT) X("cite", FR)               \
    X("co", PL | CS) X("com", PT) X("combien", FR) X("come", IT) X("comme", FR) X("comment", FR)             \
    X("como", ES | PT) X("con", ES | IT) X("cosa", IT) X("could", EN) X("cuando", ES) X("cuál", ES)          \
    X("cuáles", ES) X("cuántas", ES) X("cuánto", ES) X("cuántos", ES) X("czy", PL) X("cómo", ES)             \
    X("d", FR | IT) X("da", PT | IT | TR) X("daha", TR) X("dal", IT) X("dalla", IT) X("dame", ES)            \
    X("damit", DE) X("dammi", IT) X("dans", FR) X("das", DE | PT) X("dass", DE) X("dat", NL)                 \
    X("de", FR | ES | PT | NL | SV | DA | NB | TR) X("deg", NB) X("degli", IT) X("dei", IT) X("dein", DE)    \
    X("deine", DE) X("del", ES | IT) X("della", IT) X("delle", IT) X("dello", IT)                            \
    X("dem", DE | SV | DA | NB) X("den", DE | SV | DA | NB) X("denna", SV) X("denne", DA | NB)               \
    X("depois", PT) X("der", DE | DA | NB) X("deras", SV) X("deres", DA | NB) X("des", DE | FR)              \
    X("desde", ES | PT) X("deset", CS) X("después", ES) X("dessa", SV) X("deste", PT) X("destes", PT)        \
    X("det", SV | DA | NB) X("detta", SV) X("dette", DA | NB) X("deux", FR) X("dez", PT) X("deze", NL)       \
    X("değil", TR) X("değildir", TR) X("di", IT) X("did", EN) X("die", DE | NL) X("dieci", IT)               \
    X("diese", DE) X("dieser", DE) X("dieses", DE) X("diez", ES) X("dig", SV | DA) X("din", SV | DA | NB)    \
    X("disse", DA | NB) X("dit", NL | DA) X("ditt", SV | NB) X("dix", FR) X("dla", PL) X("dlaczego", PL)     \
    X("do", EN | PT | PL | CS) X("dobrze", PL) X("does", EN) X("dois", PT) X("donde", ES) X("donne", FR)     \
    X("door", NL) X("dopo", IT) X("dos", ES | PT) X("dove", IT) X("drei", DE) X("drie", NL)                  \
    X("du", DE | FR | SV | DA | NB) X("due", IT) X("durch", DE) X("dva", CS) X("dwa", PL) X("dziesięć", PL)  \
    X("där", SV) X("dê", PT) X("dónde", ES) X("e", PT | IT) X("een", NL) X("efter", SV | DA) X("ein", DE)    \
    X("eine", DE) X("einem", DE) X("einen", DE) X("einer", DE) X("eines", DE) X("el", ES) X("ela", PT)       \
    X("ele", PT) X("elenca", IT) X("ella", ES) X("elle", FR) X("eller", SV | DA | NB) X("elles", FR)         \
    X("em", PT) X("en", FR | ES | NL | SV | DA | NB | TR) X("entre", FR | ES | PT) X("er", NL | DA | NB)     \
    X("era", IT) X("erkläre", DE) X("es", DE | ES) X("esa", ES) X("escreva", PT) X("escribe", ES)            \
    X("ese", ES) X("essere", IT) X("est", FR) X("esta", ES | PT) X("estas", ES) X("este", ES | PT)           \
    X("estos", ES) X("está", ES | PT) X("están", ES) X("estão", PT) X("et", FR | DA | NB) X("etmek", TR)     \
    X("ett", SV) X("etter", NB) X("eu", PT) X("explain", EN) X("explica", ES) X("explique", FR | PT)         \
    X("fait", FR) X("fare", IT) X("fasse", DE) X("favor", ES | PT) X("favore", IT) X("fazer", PT)            \
    X("fem", SV | DA | NB) X("findes", DA) X("finnes", NB) X("finns", SV) X("five", EN) X("foi", PT)         \
    X("for", EN | DA | NB) X("forklar", DA | NB) X("forskel", DA) X("forskellen", DA) X("forskjell", NB)     \
    X("forskjellen", NB) X("fra", IT | DA | NB) X("fram", SV | NB) X("frem", DA | NB) X("from", EN)          \
    X("från", SV) X("fue", ES) X("fui", ES | PT) X("för", SV) X("förklara", SV) X("fünf", DE) X("für", DE)   \
    X("gade", DA) X("gdyż", PL) X("gdzie", PL) X("ge", SV) X("geef", NL) X("geen", NL) X("gerne", DA)        \
    X("gi", NB) X("gib", DE) X("gibi", TR) X("gibt", DE) X("giv", DA) X("give", EN) X("gjerne", NB)          \
    X("gjør", NB) X("gjøre", NB) X("gli", IT) X("graag", NL) X("gracias", ES) X("gärna", SV) X("gør", DA)    \
    X("ha", ES | IT) X("haar", NL) X("habe", DE) X("haben", DE) X("hacer", ES) X("had", EN | NL)             \
    X("han", ES | SV | DA | NB) X("hangi", TR) X("hangisi", TR) X("hanno", IT) X("har", SV | DA | NB)        \
    X("has", EN) X("hasta", ES) X("hat", DE) X("have", EN | DA) X("hay", ES) X("he", EN) X("hebben", NL)     \
    X("hedder", DA) X("heeft", NL) X("heel", NL) X("her", EN | TR) X("here", EN) X("het", NL) X("heter", NB) \
    X("hier", DE | NL) X("hij", NL) X("his", EN) X("hjelp", NB) X("hjelpe", NB) X("hjælp", DA)               \
    X("hjælpe", DA) X("hoe", NL) X("hoeveel", NL) X("hola", ES) X("hon", SV) X("hos", SV | DA | NB)          \
    X("how", EN) X("hun", NL | DA | NB) X("hur", SV) X("hva", NB) X("hvad", DA) X("hvem", DA | NB)           \
    X("hvilke", DA | NB) X("hvilken", DA | NB) X("hvilket", DA | NB) X("hvor", DA | NB)                      \
    X("hvordan", DA | NB) X("hvorfor", DA | NB) X("hvornår", DA) X("há", PT) X("här", SV)                    \
    X("i", EN | IT | SV | DA | NB | PL | CS) X("ich", DE | PL) X("ici", FR) X("if", EN) X("igen", DA)        \
    X("igjen", NB) X("ihm", DE) X("ihn", DE) X("ihnen", DE) X("ihr", DE) X("ihre", DE) X("ik", NL)           \
    X("iki", TR) X("ikke", DA | NB) X("il", FR | IT) X("ile", PL | TR) X("ils", FR) X("im", DE)              \
    X("in", EN | DE | IT | NL) X("inga", SV) X("ingen", SV) X("inte", SV) X("into", EN) X("io", IT)          \
    X("is", EN | NL) X("ise", TR) X("isso", PT) X("ist", DE) X("istiyorum", TR) X("isto", PT) X("it", EN)    \
    X("its", EN) X("için", TR) X("j", FR) X("ja", DE | PL) X("jag", SV) X("jak", PL | CS) X("jaka", PL)      \
    X("jaki", PL) X("jakie", PL) X("jakim", PL) X("jaká", CS) X("jaké", CS) X("jaký", CS)                    \
    X("je", FR | NL | CS) X("jede", DE) X("jeder", DE) X("jeg", DA | NB) X("jego", PL) X("jeho", CS)         \
    X("jej", PL) X("jejich", CS) X("její", CS) X("jen", CS) X("jest", PL) X("jij", NL) X("jouw", NL)         \
    X("jsem", CS) X("jsi", CS) X("jsme", CS) X("jsou", CS) X("jste", CS) X("już", PL) X("já", PT | CS)       \
    X("k", CS) X("kadar", TR) X("kan", NL | SV | DA | NB) X("kann", DE) X("kannst", DE) X("kaç", TR)         \
    X("kde", CS) X("kdo", CS) X("kdy", CS) X("kein", DE) X("keine", DE) X("ki", TR) X("kiedy", PL)           \
    X("kim", TR) X("kjøp", NB) X("kjøpe", NB) X("kjøre", NB) X("kjører", NB) X("kolik", CS) X("která", CS)   \
    X("které", CS) X("který", CS) X("kto", PL) X("która", PL) X("które", PL) X("który", PL)                  \
    X("kun", NL | DA) X("kunne", DA | NB) X("kunnen", NL) X("können", DE) X("køb", DA) X("købe", DA)         \
    X("køre", DA) X("kører", DA) X("l", FR | IT) X("la", FR | ES | IT) X("lage", NB) X("laquelle", FR)       \
    X("las", ES) X("lave", DA) X("le", FR | ES | IT) X("leg", NL) X("lei", IT) X("lequel", FR)               \
    X("les", FR | ES) X("lett", NB) X("leur", FR) X("leurs", FR) X("lo", ES | IT) X("los", ES) X("lub", PL)  \
    X("lui", IT) X("lütfen", TR) X("ma", FR | IT) X("maar", NL) X("macht", DE) X("mais", FR | PT)            \
    X("make", EN) X("mam", PL) X("man", DE) X("mange", DA | NB) X("many", EN) X("mas", PT) X("masz", PL)     \
    X("me", EN | ES | PT) X("med", SV | DA | NB) X("meer", NL) X("meg", NB) X("meget", DA) X("meglio", IT)   \
    X("mehr", DE) X("mein", DE) X("meine", DE) X("mejor", ES) X("melhor", PT) X("mellan", SV)                \
    X("mellem", DA) X("mellom", NB) X("men", SV | DA | NB) X("mer", SV | NB) X("merci", FR) X("mere", DA)    \
    X("mes", FR) X("met", NL) X("meu", PT) X("mezi", CS) X("mi", ES | IT | PL | CS | TR) X("mia", IT)        \
    X("mich", DE) X("mig", SV | DA) X("mij", NL) X("mijn", NL) X("min", SV | DA | NB) X("mina", SV)          \
    X("mine", DA | NB) X("minha", PT) X("mio", IT) X("mir", DE) X("mis", ES) X("misin", TR)                  \
    X("mit", DE | DA) X("mitt", SV | NB) X("między", PL) X("mnie", PL) X("mnoho", CS) X("mod", DA)           \
    X("moet", NL) X("moi", FR) X("moja", PL) X("moje", CS) X("molto", IT) X("mon", FR) X("more", EN)         \
    X("mot", SV | NB) X("może", PL) X("możesz", PL) X("mu", TR) X("much", EN) X("muito", PT) X("muy", ES)    \
    X("my", EN | PL | CS) X("mycket", SV) X("mye", NB) X("mám", CS) X("más", ES) X("máš", CS) X("måde", DA)  \
    X("många", SV) X("måte", NB) X("mój", PL) X("möchte", DE) X("mü", TR) X("mě", CS) X("mı", TR)            \
    X("můj", CS) X("může", CS) X("můžeš", CS) X("n", FR) X("na", PT | NL | PL | CS) X("naar", NL)            \
    X("nach", DE) X("napisz", PL) X("napiš", CS) X("nas", PT | PL) X("nasz", PL) X("nasza", PL)              \
    X("nasze", PL) X("nasıl", TR) X("naše", CS) X("ne", FR | TR) X("nebo", CS) X("neden", TR) X("nedir", TR) \
    X("need", EN) X("nel", IT) X("nella", IT) X("nello", IT) X("nemt", DA) X("nenne", DE) X("není", CS)      \
    X("nerede", TR) X("nessa", PT) X("nesse", PT) X("neste", PT) X("nevn", NB) X("ni", SV) X("nicht", DE)    \
    X("nie", PL) X("niet", NL) X("no", EN | ES | PT) X("noch", DE) X("noe", NB) X("noem", NL) X("noen", NB)  \
    X("nog", NL) X("nogen", DA) X("noget", DA) X("noi", IT) X("non", IT) X("nos", FR | ES | PT)              \
    X("nosotros", ES) X("nossa", PT) X("nosso", PT) X("nostra", IT) X("nostri", IT) X("nostro", IT)          \
    X("not", EN) X("notre", FR) X("nous", FR) X("nu", SV | DA) X("nuestra", ES) X("nuestro", ES)             \
    X("nuestros", ES) X("nur", DE) X("nás", CS) X("náš", CS) X("não", PT) X("nämn", SV) X("när", SV)         \
    X("nå", NB) X("når", NB) X("nævn", DA) X("nós", PT) X("o", ES | PT | IT | PL | CS | TR) X("och", SV)     \
    X("också", SV) X("od", PL | CS) X("oder", DE) X("of", EN | NL) X("og", DA | NB) X("ogni", IT)            \
    X("også", DA | NB) X("ohne", DE) X("olan", TR) X("olarak", TR) X("olduğu", TR) X("olmak", TR)            \
    X("olur", TR) X("om", NL | SV | DA | NB) X("omdat", NL) X("on", EN | FR | PL | CS | TR)                  \
    X("ona", PL | CS) X("onde", PT) X("onder", NL) X("one", EN) X("oni", PL | CS) X("onlar", TR)             \
    X("only", EN) X("ons", NL) X("ont", FR) X("onze", NL) X("ook", NL) X("op", NL) X("or", EN) X("oraz", PL) \
    X("os", PT | DA) X("oss", SV | NB) X("ou", FR | PT) X("our", EN) X("out", EN) X("over", NL | DA | NB)    \
    X("oversett", NB) X("oversæt", DA) X("où", FR) X("par", FR) X("para", ES | PT) X("pas", FR)              \
    X("pela", PT) X("pelo", PT) X("penge", DA) X("penger", NB) X("per", IT) X("perché", IT) X("pero", ES)    \
    X("peut", FR) X("peux", FR) X("più", IT) X("pięć", PL) X("please", EN) X("plus", FR) X("po", PL | CS)    \
    X("podaj", PL) X("pode", PT) X("podle", CS) X("ponad", PL) X("por", ES | PT) X("porque", ES | PT)        \
    X("posso", PT) X("pour", FR) X("pourquoi", FR) X("prima", IT) X("pro", CS) X("proszę", PL)               \
    X("prosím", CS) X("protože", CS) X("proč", CS) X("przez", PL) X("przy", PL) X("puede", ES)               \
    X("puedes", ES) X("puoi", IT) X("può", IT) X("på", SV | DA | NB) X("pět", CS) X("přes", CS) X("při", CS) \
    X("qu", FR) X("quais", PT) X("qual", PT) X("quale", IT) X("quali", IT) X("quand", FR)                    \
    X("quando", PT | IT) X("quantas", PT) X("quante", IT) X("quanti", IT) X("quanto", IT) X("quantos", PT)   \
    X("que", FR | ES | PT) X("quel", FR) X("quelle", FR) X("quelles", FR) X("quels", FR) X("quem", PT)       \
    X("quero", PT) X("questa", IT) X("queste", IT) X("questi", IT) X("questo", IT) X("qui", FR | IT)         \
    X("quiero", ES) X("quién", ES) X("quoi", FR) X("qué", ES) X("resuma", PT) X("resume", ES)                \
    X("riassumi", IT) X("résume", FR) X("s", FR | CS) X("sa", FR) X("sadece", TR) X("sans", FR) X("say", TR) \
    X("schreib", DE) X("schreibe", DE) X("schrijf", NL) X("scrivi", IT) X("se", ES | PT | CS) X("seg", NB)   \
    X("sehr", DE) X("sein", DE) X("seit", DE) X("selv", DA | NB) X("sem", PT) X("sen", TR) X("senin", TR)    \
    X("senza", IT) X("ser", ES | PT) X("ses", FR) X("seu", PT) X("seus", PT) X("she", EN) X("should", EN)    \
    X("si", FR | ES | IT) X("sich", DE) X("sie", DE) X("sier", NB) X("sig", DA) X("siger", DA) X("sin", ES)  \
    X("sind", DE) X("siz", TR) X("się", PL) X("ska", SV) X("skal", DA | NB) X("skriv", SV | DA | NB)         \
    X("skulle", SV | DA | NB) X("slik", NB) X("so", EN | DE) X("sobre", ES | PT) X("soll", DE)               \
    X("solo", ES | IT) X("som", SV | DA | NB) X("some", EN) X("son", FR | ES) X("sono", IT) X("sonra", TR)   \
    X("sont", FR) X("sous", FR) X("spiega", IT) X("spørgsmål", DA) X("spørsmål", NB) X("streść", PL)         \
    X("su", ES | IT) X("sua", PT) X("suas", PT) X("sul", IT) X("sulla", IT) X("summarize", EN) X("sur", FR)  \
    X("sus", ES) X("são", PT) X("så", SV | DA | NB) X("só", PT) X("sólo", ES) X("są", PL) X("ta", PL | CS)   \
    X("tack", SV) X("tady", CS) X("tager", DA) X("tak", DA | PL) X("takk", NB) X("také", CS)                 \
    X("también", ES) X("também", PT) X("tato", CS) X("te", ES | NL | PL) X("tegen", NL) X("tego", PL)        \
    X("tej", PL) X("tell", EN) X("tem", PT) X("ten", EN | PL | CS) X("tengo", ES) X("tenho", PT)             \
    X("tento", CS) X("than", EN) X("that", EN) X("the", EN) X("their", EN) X("them", EN) X("then", EN)       \
    X("there", EN) X("these", EN) X("they", EN) X("this", EN) X("those", EN) X("three", EN)                  \
    X("ti", IT | DA | NB) X("tien", NL) X("tiene", ES) X("tienen", ES) X("til", DA | NB) X("till", SV)       \
    X("tio", SV) X("to", EN | DA | NB | PL | CS) X("todo", ES) X("todos", ES) X("tot", NL) X("tous", FR)     \
    X("tout", FR) X("tra", IT) X("translate", EN) X("tre", IT | SV | DA | NB) X("trenger", NB) X("tres", ES) \
    X("trois", FR) X("trzy", PL) X("très", FR) X("três", PT) X("tu", FR | ES | IT) X("tua", PT) X("tus", ES) \
    X("tussen", NL) X("tutaj", PL) X("två", SV) X("twee", NL) X("two", EN) X("ty", PL | CS) X("tylko", PL)   \
    X("tyto", CS) X("têm", PT) X("třech", CS) X("tři", CS) X("u", NL) X("uden", DA) X("uge", DA)             \
    X("ugen", DA) X("uit", NL) X("uke", NB) X("uken", NB) X("um", DE | PT) X("uma", PT)                      \
    X("un", FR | ES | IT) X("una", ES | IT) X("unas", ES) X("und", DE) X("under", SV | DA | NB) X("une", FR) \
    X("uno", IT) X("unos", ES) X("unser", DE) X("unsere", DE) X("unter", DE) X("up", EN) X("utan", SV)       \
    X("uten", NB) X("už", CS) X("v", CS) X("vad", SV) X("van", NL) X("var", SV | DA | NB | TR)               \
    X("varför", SV) X("vat", NL) X("ve", CS | TR) X("veel", NL) X("veldig", NB) X("velmi", CS) X("vem", SV)  \
    X("venligst", DA) X("vennligst", NB) X("ver", TR) X("veux", FR) X("veya", TR) X("vi", SV | DA | NB)      \
    X("viele", DE) X("vijf", NL) X("vil", NB) X("vilka", SV) X("vilken", SV) X("vilket", SV)                 \
    X("ville", DA | NB) X("você", PT) X("voglio", IT) X("von", DE) X("voor", NL) X("vor", DE) X("vores", DA) \
    X("vorrei", IT) X("vos", FR) X("votre", FR) X("vous", FR) X("vy", CS) X("vyjmenuj", CS)                  \
    X("vysvětli", CS) X("vás", CS) X("vår", SV | NB) X("våra", SV) X("våre", NB) X("vårt", SV)               \
    X("være", DA | NB) X("více", CS) X("w", PL) X("waar", NL) X("waarom", NL) X("wann", DE) X("wanneer", NL) \
    X("want", EN) X("war", DE) X("warum", DE) X("was", EN | DE | NL | PL) X("wat", NL) X("we", EN | NL)      \
    X("welche", DE) X("welcher", DE) X("welches", DE) X("welk", NL) X("welke", NL) X("wenn", DE)             \
    X("wer", DE) X("werden", DE) X("were", EN) X("what", EN) X("when", EN) X("where", EN) X("which", EN)     \
    X("while", EN) X("who", EN) X("wie", DE | NL) X("wieder", DE) X("wiele", PL) X("wij", NL)                \
    X("will", EN | DE) X("wir", DE) X("wird", DE) X("with", EN) X("without", EN) X("więc", PL)               \
    X("więcej", PL) X("wo", DE) X("worden", NL) X("wordt", NL) X("would", EN) X("write", EN) X("wy", PL)     \
    X("wyjaśnij", PL) X("wymień", PL) X("y", FR | ES) X("ya", ES | TR) X("yaz", TR) X("yes", EN) X("yo", ES) \
    X("yok", TR) X("you", EN) X("your", EN) X("z", PL | CS) X("za", PL | CS) X("ze", NL | PL) X("zeer", NL)  \
    X("zehn", DE) X("zich", NL) X("zij", NL) X("zijn", NL) X("zou", NL) X("zu", DE) X("zum", DE)             \
    X("zur", DE) X("zwei", DE) X("zwischen", DE) X("à", FR | PT) X("är", SV) X("även", SV) X("å", NB)        \
    X("åt", SV) X("çok", TR) X("è", IT) X("é", PT) X("écris", FR) X("él", ES) X("était", FR) X("été", FR)    \
    X("être", FR) X("önce", TR) X("över", SV) X("özetle", TR) X("über", DE) X("üç", TR) X("şekilde", TR)     \
    X("şey", TR) X("şimdi", TR) X("şu", TR) X("że", PL) X("že", CS) X("або", UK) X("але", UK)                \
    X("багато", UK) X("був", UK) X("будь", UK) X("була", UK) X("було", UK) X("бути", UK) X("бы", RU)         \
    X("был", RU) X("была", RU) X("было", RU) X("быть", RU) X("в", RU | UK) X("ви", UK) X("вона", UK)         \
    X("вони", UK) X("все", RU) X("вы", RU) X("від", UK) X("він", UK) X("где", RU) X("да", RU)                \
    X("два", RU | UK) X("де", UK) X("для", RU | UK) X("до", RU | UK) X("дуже", UK) X("его", RU)              \
    X("если", RU) X("есть", RU) X("её", RU) X("же", RU | UK) X("з", UK) X("за", RU | UK) X("здесь", RU)      \
    X("и", RU) X("из", RU) X("или", RU) X("их", RU) X("й", UK) X("його", UK) X("к", RU) X("как", RU)         \
    X("какая", RU) X("какие", RU) X("какой", RU) X("когда", RU) X("коли", UK) X("который", RU) X("кто", RU)  \
    X("ласка", UK) X("между", RU) X("мене", UK) X("меня", RU) X("мені", UK) X("ми", UK) X("мне", RU)         \
    X("много", RU) X("могу", RU) X("можна", UK) X("можно", RU) X("можу", UK) X("мой", RU) X("мы", RU)        \
    X("між", UK) X("мій", UK) X("на", RU | UK) X("напиши", RU | UK) X("наш", RU | UK) X("наши", RU)          \
    X("наші", UK) X("не", RU | UK) X("немає", UK) X("нет", RU) X("но", RU) X("о", RU | UK) X("объясни", RU)  \
    X("он", RU) X("она", RU) X("они", RU) X("от", RU) X("очень", RU) X("перед", RU | UK) X("по", RU | UK)    \
    X("пожалуйста", RU) X("после", RU) X("потому", RU) X("почему", RU) X("поясни", UK) X("при", RU | UK)     \
    X("пять", RU) X("після", UK) X("с", RU) X("сколько", RU) X("скільки", UK) X("та", UK) X("так", RU | UK)  \
    X("ти", UK) X("только", RU) X("тому", UK) X("три", RU | UK) X("тут", UK) X("ты", RU) X("у", RU | UK)     \
    X("хочу", RU | UK) X("хто", UK) X("це", UK) X("цей", UK) X("цих", UK) X("ця", UK) X("ці", UK)            \
    X("чем", RU) X("чим", UK) X("чому", UK) X("что", RU) X("що", UK) X("эта", RU) X("эти", RU) X("этих", RU) \
    X("это", RU) X("этот", RU) X("я", RU | UK) X("як", UK) X("яка", UK) X("який", UK) X("якщо", UK)          \
    X("які", UK) X("є", UK) X("і", UK) X("із", UK) X("їх", UK) X("її", UK)
// clang-format on
